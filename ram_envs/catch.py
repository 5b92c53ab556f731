"""The game of Catch, N games advanced together (Mnih et al. 2014, section 4.2): seen whole, or through the retina.

A ball of one pixel falls from the top of the screen, one row a step, and bounces off the sides; a paddle of two pixels on the
bottom row goes left or right by one or stays. When the ball reaches the bottom row the game is over: reward 1 if the paddle
is under it, else 0. Nothing is earned before that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ram_envs.actions import ActionCodec, as_array, check_choice
from ram_envs.frame import Frame, Look, in_unit_range, look_of, one_hot, scores_of
from ram_envs.retina import Gaze
from ram_envs.sampling import compiled, draw_uniform
from ram_envs.task import Task

MOVES = ("left", "stay", "right")  # The paddle goes by -1, 0, 1 columns.
PADDLE_WIDTH = 2
MAX_SIZE = 2**14
PADDLE_STARTS = ("middle", "random")
_GAMMA = 1 / 3  # In a coarse patch the ball, of one pixel, has a sixteenth of its brightness: drawn with 0.4.
_Shape = tuple[int, int]
_Speeds = tuple[int, ...]


class Catch(Task):
    """Catch seen whole: the observation is the screen (height, width), 0 or 1; the action is one of `MOVES`.

    Args:
        num_envs: N.
        size: the screen's side in pixels.
        height: the rows of a screen that is not square; None: `size`.
        width: its columns; None: `size`.
        ball_speeds: the horizontal speeds, in pixels a step, of which each ball has one at random.
        paddle_start: "middle", from where every ball can be caught unless the screen is far wider than high, or "random".

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    choice_names, success_name = MOVES, "balls caught"
    reset_options = ("ball_column", "ball_speed")
    state_names = (*Task.state_names, "screens", "ball", "speed", "paddle", "caught")
    render_fps = 8

    def __init__(
        self,
        num_envs: int = 1,
        *,
        size: int = 24,
        height: int | None = None,
        width: int | None = None,
        ball_speeds: _Speeds = (-1, 0, 1),
        paddle_start: str = "middle",
    ) -> None:
        shape = _check_game(size, height, width, ball_speeds, paddle_start)
        self._set_up(num_envs, np.zeros((num_envs, *shape), np.uint8), 0, shape, ball_speeds, paddle_start)
        self.observation_space: spaces.Space = spaces.Box(0.0, 1.0, shape, np.float32)
        self.action_space: spaces.Space = spaces.Discrete(len(MOVES))

    def _set_up(
        self, num_envs: int, screens: NDArray, margin: int, shape: _Shape, ball_speeds: _Speeds, paddle_start: str
    ) -> None:
        self.num_envs = num_envs
        self.streams, self.terminated = np.zeros(num_envs, np.uint64), np.zeros(num_envs, np.bool_)
        self.scene_shape, self.choices = shape, {"move": len(MOVES)}
        self.screens = screens  # (N, H, W); the game begins at row and column `margin`.
        self.margin, (self.height, self.width) = margin, shape
        self.max_episode_steps = self.height - 1
        self.ball_speeds, self.paddle_start = np.array(ball_speeds, np.int64), paddle_start
        self.ball = np.zeros((num_envs, 2), np.int64)  # Column and row.
        self.speed = np.zeros(num_envs, np.int64)  # Columns a step, to the right.
        self.paddle = np.zeros(num_envs, np.int64)  # Its left column.
        self.caught = np.zeros(num_envs, np.bool_)

    def begin(self, where: NDArray[np.bool_], options: dict[str, Any]) -> None:
        """New balls; `options` may hold "ball_column" and "ball_speed", a number or (N,) numbers each."""
        where = self.mask(where)
        columns = self._check_option("ball_column", options, list(range(self.width)))
        speeds = self._check_option("ball_speed", options, self.ball_speeds.tolist())
        # Five draws for each game, whether they are used or not: options do not shift the streams.
        draws, self.streams[where] = draw_uniform(self.streams[where], 5)
        drawn = [(draws[:, 0] * self.width).astype(np.int64), (draws[:, 1] * len(self.ball_speeds)).astype(np.int64)]
        self._draw(where, 0)
        self.ball[where, 0] = drawn[0] if columns is None else columns[where]
        self.ball[where, 1] = 0
        self.speed[where] = self.ball_speeds[drawn[1]] if speeds is None else speeds[where]
        places = self.width - PADDLE_WIDTH + 1
        self.paddle[where] = (draws[:, 2] * places).astype(np.int64) if self.paddle_start == "random" else places // 2
        self.caught[where] = self.terminated[where] = False
        self._draw(where, 255)
        self._begin_looking(where, draws[:, 3:])

    def _begin_looking(self, where: NDArray[np.bool_], draws: NDArray) -> None:
        """Place the first glimpses, where there are any."""

    def step(self, action: Any, num_actions: int | None, where: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Move the paddle; the reward is 1 for a ball caught."""
        moves = check_choice("action", action, len(MOVES), () if num_actions is None else (num_actions,))
        return self._play(moves.reshape(-1), where)

    def _play(self, moves: NDArray[np.int64], where: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        if len(moves) != self.num_envs:
            raise ValueError(f"num_actions must be {self.num_envs}, the number of environments, got {len(moves)}")
        where = self.mask(where)
        self._draw(where, 0)
        _advance(moves, where, self.scene_shape, self.ball, self.speed, self.paddle, self.terminated, self.caught)
        self._draw(where, 255)
        return self.caught.astype(np.float64)

    def _draw(self, where: NDArray[np.bool_], grey: int) -> None:
        _draw_pixels(self.screens, self.margin, self.scene_shape, self.ball, self.paddle, where, grey)

    def state_bounds(self) -> dict[str, tuple[Any, Any]]:
        """See `Task.state_bounds`."""
        fastest, last = int(abs(self.ball_speeds).max()), (self.width - 1, self.height - 1)
        return {"ball": ((0, 0), last), "speed": (-fastest, fastest), "paddle": (0, self.width - PADDLE_WIDTH)}

    def observe(self) -> Any:
        """The screens (N, height, width), 0 or 1."""
        return self.screens / np.float32(255)

    def info(self) -> dict[str, tuple[NDArray, NDArray[np.bool_] | None]]:
        """Whether the ball was caught; not yet while it falls."""
        return {"is_success": (self.caught, None)}

    def frame(self, env: int = 0, action: Any = None) -> Frame:
        """The whole screen and the last move."""
        move = None if action is None else int(action)
        return self._frame(env, None, one_hot(len(MOVES), move), move)

    def _frame(self, env: int, look: Look | None, scores: NDArray[np.float32], move: int | None) -> Frame:
        lines = [f"step {self.ball[env, 1]} of {self.height - 1}"]
        if self.terminated[env]:
            lines.append("caught" if self.caught[env] else "missed")
        rows, columns = (slice(self.margin, self.margin + side) for side in self.scene_shape)
        return Frame(
            scene=in_unit_range(self.screens[env, rows, columns]),
            look=look,
            lines=(*lines, f"reward {self.caught[env]:d}"),
            names=MOVES,
            scores=scores,
            choice=move,
            gamma=_GAMMA,
        )

    def _check_option(self, name: str, options: dict[str, Any], allowed: Any) -> NDArray[np.int64] | None:
        """`options[name]` as (N,), None where it is not given."""
        if name not in options:
            return None
        values = as_array(options[name])
        if values.dtype.kind not in "iu" or values.shape not in ((), (self.num_envs,)) or not np.isin(values, allowed).all():
            raise ValueError(f"options['{name}'] must be out of {allowed}, or {self.num_envs} such, got {options[name]!r}")
        return np.broadcast_to(values, self.num_envs).astype(np.int64)


class GlimpseCatch(Catch):
    """Catch seen through the retina: the actions are the next location and a move.

    Args:
        num_envs: N.
        size: the screen's side in pixels.
        height: the rows of a screen that is not square; None: `size`.
        width: its columns; None: `size`.
        ball_speeds: the horizontal speeds, in pixels a step, of which each ball has one at random.
        paddle_start: "middle", from where every ball can be caught unless the screen is far wider than high, or "random".
        glimpse_size: g, the side of a glimpse in pixels; "scene": the longer side of the screen.
        num_scales: k, the number of patches, each twice as wide as the one before.
        initial_location: where the first glimpse is taken: "center", "random" (uniform over the screen), or a pair (x, y) in
            [-1, 1].
        zoom_action: with each location the agent also chooses a "zoom" out of `num_zooms`: at zoom z all patches are 2^z times
            as wide. The first glimpse has zoom 0.
        num_zooms: Z, used with `zoom_action`.
        action_format: "dict", "box", "multidiscrete" or "discrete", see `ram_envs.actions`.
        location_grid: G, the locations to a side in the discrete formats.
        grid_extent: E, from 0.001 to 1: there the grid fills [-E, E]^2, the scene or only the middle of it.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    state_names = (*Catch.state_names, *Gaze.state_names)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        size: int = 24,
        height: int | None = None,
        width: int | None = None,
        ball_speeds: _Speeds = (-1, 0, 1),
        paddle_start: str = "middle",
        glimpse_size: int | str = 6,
        num_scales: int = 3,
        initial_location: str | tuple[float, float] = "center",
        zoom_action: bool = False,
        num_zooms: int = 2,
        action_format: str = "dict",
        location_grid: int = 5,
        grid_extent: float = 1.0,
    ) -> None:
        shape = _check_game(size, height, width, ball_speeds, paddle_start)
        self.gaze = Gaze(num_envs, initial_location, shape, glimpse_size, num_scales, num_zooms if zoom_action else 1)
        self._set_up(num_envs, self.gaze.scenes, self.gaze.retina.margin, shape, ball_speeds, paddle_start)
        self.choices |= {"zoom": num_zooms} if zoom_action else {}
        self.codec = ActionCodec(self.choices, action_format, location_grid, grid_extent)
        self.observation_space, self.action_space = self.gaze.space, self.codec.space

    def _begin_looking(self, where: NDArray[np.bool_], draws: NDArray) -> None:
        self.gaze.begin(where, draws)

    def step(self, action: Any, num_actions: int | None, where: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Move the paddle and look at the location given; the reward is 1 for a ball caught."""
        locations, choices = self.codec.decode(action, num_actions)
        rewards = self._play(choices["move"], where)
        self.gaze.look(locations, choices.get("zoom"), where)
        return rewards

    def state_bounds(self) -> dict[str, tuple[Any, Any]]:
        """See `Task.state_bounds`."""
        return {**super().state_bounds(), **self.gaze.state_bounds()}

    def observe(self) -> dict[str, NDArray[np.float32]]:
        """See `Gaze.observe`."""
        return self.gaze.observe()

    def frame(self, env: int = 0, action: Any = None) -> Frame:
        """The whole screen, the retina's look at it, and the last move."""
        scores, choices = scores_of(self.codec, action)
        return self._frame(env, look_of(self.gaze, self.screens, env), scores, choices.get("move"))

    def object_places(self) -> NDArray[np.float64]:
        """The middle of the ball: (N, 2) in [-1, 1], x first."""
        return (2 * self.ball + 1) / (self.width, self.height) - 1

    def glimpse_statistics(self) -> tuple[float, list[float]]:
        """See `Task.glimpse_statistics`: of games at any step, with the paddle anywhere."""

        def fill(screens: NDArray, rng: np.random.Generator) -> None:
            ball = rng.integers((self.width, self.height), size=(len(screens), 2))
            paddle = rng.integers(self.width - 1, size=len(screens))
            _draw_pixels(screens, self.margin, self.scene_shape, ball, paddle, np.ones(len(screens), np.bool_), 255)

        return self.gaze.retina.statistics(fill)


@compiled
def _advance(moves, where, shape, ball, speed, paddle, terminated, caught):
    height, width = shape
    for n in range(len(moves)):
        if not where[n] or ball[n, 1] >= height - 1:
            continue
        paddle[n] = min(max(paddle[n] + moves[n] - 1, 0), width - PADDLE_WIDTH)
        column, last = ball[n, 0] + speed[n], width - 1
        if column < 0 or column > last:
            column = -column if column < 0 else 2 * last - column
            speed[n] = -speed[n]
        ball[n, 0] = column
        ball[n, 1] += 1
        terminated[n] = ball[n, 1] == height - 1
        caught[n] = terminated[n] and 0 <= column - paddle[n] < PADDLE_WIDTH


@compiled
def _draw_pixels(screens, margin, shape, ball, paddle, where, grey):
    for n in range(screens.shape[0]):
        if where[n]:
            screens[n, margin + ball[n, 1], margin + ball[n, 0]] = grey
            for i in range(PADDLE_WIDTH):
                screens[n, margin + shape[0] - 1, margin + paddle[n] + i] = grey


def _check_game(size: int, height: int | None, width: int | None, ball_speeds: Any, paddle_start: Any) -> _Shape:
    """The screen's height and width."""
    for name, side in (("size", size), ("height", height), ("width", width)):
        if side is not None and not PADDLE_WIDTH <= side <= MAX_SIZE:
            raise ValueError(f"{name} must be from {PADDLE_WIDTH} to {MAX_SIZE} pixels, got {side!r}")
    shape = (size if height is None else height, size if width is None else width)
    speeds, most = as_array(ball_speeds), shape[1] - 1
    if speeds.ndim != 1 or speeds.size == 0 or speeds.dtype.kind not in "iu" or any(abs(v) > most for v in speeds.tolist()):
        raise ValueError(f"ball_speeds must be a list of whole numbers between -{most} and {most}, got {ball_speeds!r}")
    if paddle_start not in PADDLE_STARTS:
        raise ValueError(f"paddle_start must be one of {PADDLE_STARTS}, got {paddle_start!r}")
    return shape
