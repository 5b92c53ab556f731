"""Play an environment yourself, seeing only what the retina sees.

python -m ram_envs.play GlimpseCatch-v0            # the arrow keys move the paddle, the mouse moves the gaze
python -m ram_envs.play GlimpseCatch-v0 --fps 4    # a slower ball
python -m ram_envs.play GlimpseMNIST-v0            # a click looks there, a digit says what it is
python -m ram_envs.play GlimpseMNIST-v0 --full     # shows the whole scene and the path as well, not the answer
python -m ram_envs.play GlimpseTranslatedMNIST-v0 --env-kwargs zoom_action:True split:test

Everywhere: the wheel, or + and -, choose the zoom of the next look where there is one; R begins anew; Esc ends. When classifying:
space looks again at the same place; more than ten classes are typed as a number and Enter.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ram_envs.catch import Catch
from ram_envs.classification import GlimpseClassification
from ram_envs.datasets import DataError
from ram_envs.drawing import Place, draw, pygame
from ram_envs.env import GlimpseEnv, parse_pairs
from ram_envs.frame import Frame, through_retina
from ram_envs.rendering import Renderer, Window


class Game:
    """A person at one environment: takes pygame's events, takes the steps they ask for, draws what the person may see.

    Args:
        env: the environment.
        full: show the whole scene and the path, not only what the retina sees.
        seed: of the first episode.

    Attributes:
        won, played: numbers of episodes.
        is_over: whether the episode is.
        is_ended: whether the person has ended the game.
        is_started: whether the person has done something; until then the help stands below the scene.
    """

    fps = 20
    pause = 1.5  # Seconds for which the end of an episode is shown.
    won_words = "right"
    help = ""

    def __init__(self, env: GlimpseEnv, full: bool = False, seed: int | None = None) -> None:
        self.env, self.full = env, full
        self.task: Any = env.task
        self.won = self.played = 0
        self.is_ended = self.is_over = self.is_started = False
        self.zoom = 0
        self._renderer = Renderer(env.task, "rgb_array")
        self._place = Place.of(env.scene_shape)
        self.restart(seed)

    def restart(self, seed: int | None = None) -> None:
        """Begin an episode."""
        self.env.reset(seed=seed)
        self._renderer.begin(np.ones(1, np.bool_))
        self.is_over, self.zoom = False, 0

    def handle(self, event: pygame.event.Event, point: tuple[float, float] | None = None) -> None:
        """Take an event in; point is its place in the picture, for events of the mouse."""
        self.is_started |= event.type in (pygame.KEYDOWN, pygame.MOUSEBUTTONDOWN, pygame.MOUSEWHEEL)
        if event.type in (pygame.QUIT, pygame.WINDOWCLOSE) or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
            self.is_ended = True
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_r:
            self.restart()
        elif event.type == pygame.MOUSEWHEEL:
            self._change_zoom(event.y)
        elif event.type == pygame.KEYDOWN and event.unicode in ("+", "=", "-"):
            self._change_zoom(-1 if event.unicode == "-" else 1)
        else:
            self.control(event, None if point is None else self._place.location(*point))

    def control(self, event: pygame.event.Event, location: NDArray | None) -> None:
        """Take in an event of this game's own controls; location is that of the mouse."""
        raise NotImplementedError

    def advance(self) -> None:
        """Take the next step, if the person has asked for one."""
        raise NotImplementedError

    def score(self) -> str:
        """Of the episodes so far."""
        return f"{self.won_words} {self.won} of {self.played}"

    def note(self) -> str:
        """What stands below the scene: how to play, and then the score."""
        return self.score() if self.is_started or self.played else self.help

    def frame(self) -> Frame:
        """What there is to draw."""
        return self._renderer.frame(0)

    def picture(self) -> NDArray[np.uint8]:
        """The picture for the person: the glimpse, and when the episode is over the whole scene with the right answer."""
        frame = self.frame()
        if not self.is_over:
            frame = replace(frame, truth=None)
        if self.full or self.is_over:
            return draw(frame, self._renderer.path(0), self.note())
        return draw(replace(frame, scene=through_retina(frame)), note=self.note())

    def step(self, location: NDArray | None, **choices: int) -> None:
        """Look at a location (None: the same again) and send the person's choices, if there are any."""
        sent = {"class": 0, "stop": 0, "zoom": self.zoom, **choices}
        action: Any = sent.get("move")
        if hasattr(self.task, "codec"):
            location = self.task.gaze.locations[0] if location is None else location
            wanted = {name: np.array([sent[name]]) for name in self.task.codec.choices}
            batch = self.task.codec.encode(location[None], **wanted)
            action = {name: values[0] for name, values in batch.items()} if isinstance(batch, dict) else batch[0]
        _, _, self.is_over, _, info = self.env.step(action)
        self._renderer.step(action if choices else None, None, np.zeros(1, np.bool_))
        self.played += self.is_over
        self.won += info.get("is_success", False)

    def _change_zoom(self, by: int) -> None:
        self.zoom = min(max(self.zoom + by, 0), self.env.choices.get("zoom", 1) - 1)


class CatchGame(Game):
    """The arrow keys move the paddle, the mouse moves the gaze; the first ball waits for a key or a click."""

    fps = Catch.render_fps
    pause = 1.0
    won_words = "caught"
    help = "any key starts    arrow keys: paddle, mouse: gaze, R: again, Esc: end"

    def __init__(self, env: GlimpseEnv, full: bool = False, seed: int | None = None) -> None:
        super().__init__(env, full, seed)
        self._down: set[int] = set()
        self._tapped: set[int] = set()  # Since the last step: a short press counts as well.
        self._location: NDArray | None = None  # Of the mouse.

    def control(self, event: pygame.event.Event, location: NDArray | None) -> None:
        if location is not None:
            self._location = location
        elif event.type == pygame.KEYDOWN:
            self._down.add(event.key)
            self._tapped.add(event.key)
        elif event.type == pygame.KEYUP:
            self._down.discard(event.key)
        elif event.type == pygame.WINDOWFOCUSLOST:  # From now on no event tells that a key comes up.
            self._down.clear()

    def advance(self) -> None:
        if not self.is_started:
            return
        pressed, self._tapped = self._down | self._tapped, set()
        self.step(self._location, move=1 + (pygame.K_RIGHT in pressed) - (pygame.K_LEFT in pressed))


class ClassificationGame(Game):
    """A click looks there, a digit says what it is."""

    help = "click: look, 0-9: say what it is, space: look again, R: another, Esc: end"

    def restart(self, seed: int | None = None) -> None:
        """Begin an episode."""
        super().restart(seed)
        self._looks: list[NDArray | None] = []  # Asked for and not yet taken.
        self._answer: int | None = None
        self._typed = ""

    def control(self, event: pygame.event.Event, location: NDArray | None) -> None:
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self._look(location)
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_SPACE:
            self._look(None)
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_BACKSPACE:
            self._typed = self._typed[:-1]
        elif event.type == pygame.KEYDOWN and event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            self._say()
        elif event.type == pygame.KEYDOWN and event.unicode.isdecimal():
            self._typed += event.unicode
            if self.env.choices["class"] <= 10:
                self._say()

    def advance(self) -> None:
        """Take a look that was asked for, or answer. The class counts at the last step only: an answer is sent until then."""
        if self._answer is not None:
            self.step(None, **{"class": self._answer}, stop=1)
        elif self._looks and self._looks_left():
            self.step(self._looks.pop(0))

    def note(self) -> str:
        words = [super().note()]
        if self._typed:
            words.append(f"class {self._typed}_")
        elif not self.is_over and not self._looks_left():
            words.append("no look left: what is it?")
        if self.zoom != self.task.gaze.zooms[0]:
            words.append(f"next zoom {self.zoom}")
        return "    ".join(words)

    def _look(self, location: NDArray | None) -> None:
        if self.is_over:
            self.restart()
        else:
            self._looks.append(location)

    def _looks_left(self) -> int:
        return int(self.task.num_glimpses - 1 - self.task.steps[0])

    def _say(self) -> None:
        if self._typed and int(self._typed) < self.env.choices["class"]:
            self._answer = int(self._typed)
        self._typed = ""


def new_game(env: GlimpseEnv, full: bool = False, seed: int | None = None) -> Game:
    """The game of an environment's task.

    Raises:
        TypeError: there are no controls for it.
    """
    for task, game in ((Catch, CatchGame), (GlimpseClassification, ClassificationGame)):
        if isinstance(getattr(env, "task", None), task):
            return game(env, full, seed)
    raise TypeError(f"there are no controls for {env}; those of ram_envs can be played")


def play(game: Game, fps: float | None = None, max_frames: int | None = None) -> None:
    """Let a person play until the window is closed, or for max_frames pictures; a step is taken after each picture."""
    fps = game.fps if fps is None else fps
    name = type(game.env).__name__ if game.env.spec is None else game.env.spec.id
    window, clock, shown_for, frames = Window(name, fps), pygame.time.Clock(), 0, 0
    while not game.is_ended and (max_frames is None or frames < max_frames):
        picture, frames = game.picture(), frames + 1
        window.draw(picture)
        clock.tick(fps)
        for event in pygame.event.get():
            game.handle(event, window.to_picture(event.pos, picture) if hasattr(event, "pos") else None)
        shown_for = shown_for + 1 if game.is_over else 0
        if not game.is_over:
            game.advance()
        elif shown_for > game.pause * fps:
            game.restart()
    window.close()


def main(arguments: list[str] | None = None, prog: str = "python -m ram_envs.play") -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env", nargs="?", default="GlimpseCatch-v0", help="a registered environment's id")
    parser.add_argument("--full", action="store_true", help="show the whole scene and the path")
    parser.add_argument("--fps", type=float, help="pictures a second; in Catch also steps a second")
    parser.add_argument("--seed", type=int, help="of the first episode")
    parser.add_argument("--env-kwargs", nargs="+", default=[], metavar="NAME:VALUE", help="options of the environment to change")
    options = parser.parse_args(arguments)
    try:
        env: Any = gym.make(options.env, **parse_pairs(options.env_kwargs))
        game = new_game(env.unwrapped, options.full, options.seed)
    except (TypeError, ValueError, gym.error.Error, DataError) as error:
        parser.error(str(error))
    print(game.help)
    play(game, options.fps)
    env.close()
    print(game.score())


if __name__ == "__main__":
    main()
