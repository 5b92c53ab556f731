import numpy as np
import pytest
from conftest import make, make_vec
from gymnasium import spaces

from ram_envs.catch import MAX_SIZE, Catch, GlimpseCatch
from ram_envs.sampling import draw_uniform

LEFT, STAY, RIGHT = 0, 1, 2
ALL = np.ones(3, bool)


def play(moves, column, speed, **options):
    """The whole game of a ball: where it was seen, the screens, the rewards."""
    env = make("Catch-v0", **options)
    screens = [env.reset(seed=0, options={"ball_column": column, "ball_speed": speed})[0]]
    rewards = []
    for move in moves:
        obs, reward, terminated, _, _ = env.step(move)
        screens.append(obs)
        rewards.append(reward)
    assert terminated
    return [tuple(int(i) for i in np.argwhere(screen[:-1])[0][::-1]) for screen in screens[:-1]], screens, rewards


def test_the_papers_game():
    env = make("GlimpseCatch-v0")
    obs, info = env.reset(seed=0)
    assert obs["glimpse"].shape == (3, 6, 6)
    assert obs["location"].tolist() == [0, 0]
    assert info == {"is_success": False}  # The same facts at each step.
    screen = make("Catch-v0").reset(seed=0)[0]
    assert screen.shape == (24, 24)
    assert np.argwhere(screen[-1]).ravel().tolist() == [11, 12]  # Two pixels in the middle of the bottom row.
    assert screen[0].sum() == 1


def test_a_ball_falls_and_bounces_by_hand():
    seen, screens, rewards = play([STAY] * 5, column=1, speed=-1, size=6)
    # Column 1, 0, then off the left side: 1, 2, 3; the row goes down by one each step.
    assert seen == [(1, 0), (0, 1), (1, 2), (2, 3), (3, 4)]
    assert np.argwhere(screens[-1][-1]).ravel().tolist() == [2, 3, 4]  # The ball beside the paddle at 2 and 3.
    assert rewards == [0, 0, 0, 0, 0]
    seen, _, rewards = play([STAY] * 5, column=4, speed=1, size=6)
    assert seen == [(4, 0), (5, 1), (4, 2), (3, 3), (2, 4)]
    assert rewards == [0, 0, 0, 0, 0]  # It ends in column 1.
    assert play([STAY] * 5, column=2, speed=0, size=6)[2] == [0, 0, 0, 0, 1]


def test_a_screen_that_is_not_square_by_hand():
    seen, screens, rewards = play([RIGHT] * 3, column=1, speed=1, height=4, width=3)
    assert seen == [(1, 0), (2, 1), (1, 2)]  # It bounces off the right side, and ends in column 0 of the bottom row.
    assert screens[0].shape == (4, 3)
    assert screens[0][3].tolist() == [0, 1, 1] and screens[3][3].tolist() == [1, 1, 1] and rewards == [0, 0, 0]
    assert play([LEFT] * 3, column=1, speed=1, height=4, width=3)[2] == [0, 0, 1]
    env = make("GlimpseCatch-v0", height=5, width=9, num_scales=1, glimpse_size="scene", initial_location=(0, 0))
    obs, _ = env.reset(seed=0, options={"ball_column": 8, "ball_speed": 0})
    assert env.unwrapped.scene_shape == (5, 9) and env.spec.max_episode_steps == 4
    assert np.argwhere(obs["glimpse"][0]).tolist() == [[2, 8], [6, 4], [6, 5]]  # Five rows in the middle of nine.
    frame = env.unwrapped.frame()
    assert frame.scene.shape == (5, 9) and frame.lines[0] == "step 0 of 4"


def test_screens_of_equal_sides_are_those_of_the_size():
    square, sides = make_vec(50, "GlimpseCatch-v0", size=7), make_vec(50, "GlimpseCatch-v0", height=7, width=7)
    for _ in range(3):
        np.testing.assert_equal(square.reset(seed=2), sides.reset(seed=2))
    assert square.unwrapped.glimpse_statistics() == sides.unwrapped.glimpse_statistics()


def test_fast_balls_bounce_where_they_would_have_gone():
    assert play([STAY] * 5, column=1, speed=-3, size=6, ball_speeds=(-3, 3))[0] == [(1, 0), (2, 1), (5, 2), (2, 3), (1, 4)]


def test_a_ball_that_touches_a_side_has_not_bounced_yet():
    game = Catch(2, size=5, ball_speeds=(-2, 2))
    game.begin(ALL[:2], {"ball_column": [2, 2], "ball_speed": [-2, 2]})
    for columns, speeds in (([0, 4], [-2, 2]), ([2, 2], [2, -2])):
        game.step([STAY, STAY], 2, None)
        assert (game.ball[:, 0].tolist(), game.speed.tolist()) == (columns, speeds)


def test_the_paddle_goes_one_column_a_step_and_stops_at_the_sides():
    env = make("Catch-v0", size=6)
    env.reset(seed=0)
    for move, expected in ((LEFT, [1, 2]), (LEFT, [0, 1]), (LEFT, [0, 1]), (RIGHT, [1, 2])):
        obs, *_ = env.step(move)
        assert np.argwhere(obs[-1]).ravel().tolist() == expected


@pytest.mark.parametrize("paddle_start", ["middle", "random"])
def test_every_ball_can_be_caught(paddle_start):
    """A paddle that goes straight to where the ball will land catches all; one that does not move catches few."""
    envs = make_vec(500, "GlimpseCatch-v0", paddle_start=paddle_start)
    envs.reset(seed=1)
    game = envs.unwrapped.task
    landing = game.ball[:, 0] + 23 * game.speed
    landing = np.abs((landing + 23) % 46 - 23)  # Folded at the sides, columns 0 and 23.
    for _ in range(23):
        moves = 1 + np.sign(landing - game.paddle) * (np.abs(landing - game.paddle - 0.5) > 0.5)
        _, rewards, terminated, _, info = envs.step({"location": np.zeros((500, 2)), "move": moves})
    assert terminated.all()
    assert rewards.mean() == 1
    assert info["is_success"].all()
    envs.reset(seed=1)
    for _ in range(23):
        _, rewards, *_ = envs.step({"location": np.zeros((500, 2)), "move": np.full(500, STAY)})
    assert rewards.mean() < 0.2


def test_balls_start_everywhere_with_every_speed():
    envs = make_vec(3000, "GlimpseCatch-v0", paddle_start="random")
    envs.reset(seed=0)
    task = envs.unwrapped.task
    assert np.bincount(task.ball[:, 0], minlength=24).min() > 80
    assert np.bincount(task.speed + 1, minlength=3).min() > 900
    assert np.bincount(task.paddle, minlength=23).min() > 80
    assert len(np.bincount(task.paddle)) == 23
    assert (task.ball[:, 1] == 0).all()


def test_the_glimpse_shows_ball_and_paddle_where_they_are():
    env = make("GlimpseCatch-v0", initial_location=(-0.5, -1))  # The corner between columns 5 and 6 on the upper edge.
    obs, _ = env.reset(seed=0, options={"ball_column": 5, "ball_speed": 1})
    assert np.argwhere(obs["glimpse"][0]).tolist() == [[3, 2]]  # Rows -3 to 2 and columns 3 to 8 are seen.
    assert obs["glimpse"][1, 3, 2] == 1 / 4
    assert obs["glimpse"][2, 3, 2] == 1 / 16
    obs, *_ = env.step({"location": np.array([0, 1], np.float32), "move": STAY})
    assert np.argwhere(obs["glimpse"][0]).tolist() == [[2, 2], [2, 3]]  # The paddle, columns 11 and 12 of 9 to 14.
    assert obs["glimpse"][2].sum() == pytest.approx(2 / 16)  # The ball in row 1 is out of sight: rows 12 to 35 are seen.
    obs, *_ = env.step({"location": np.array([0, 0], np.float32), "move": STAY})
    assert obs["glimpse"][2].sum() == pytest.approx(3 / 16)  # From the centre the widest patch sees the whole game.


def test_both_see_the_same_games():
    whole, glimpsed = make_vec(50, "Catch-v0"), make_vec(50, "GlimpseCatch-v0")
    screens, _ = whole.reset(seed=7)
    glimpsed.reset(seed=7)
    rng = np.random.default_rng(0)
    for _ in range(50):
        moves = rng.integers(0, 3, 50)
        screens, rewards, terminated, *_ = whole.step(moves)
        _, others, ended, *_ = glimpsed.step({"location": rng.uniform(-1, 1, (50, 2)), "move": moves})
        task = glimpsed.unwrapped.task
        np.testing.assert_array_equal(screens, task.gaze.retina.inner(task.screens) / 255)
        np.testing.assert_array_equal(rewards, others)
        np.testing.assert_array_equal(terminated, ended)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1}, "size must be"),
        ({"height": 1}, "height must be from 2 to 16384 pixels, got 1"),
        ({"width": 20_000}, "width must be from 2 to 16384 pixels, got 20000"),
        ({"width": 3, "ball_speeds": (0, 3)}, "between -2 and 2"),
        ({"size": 10**30}, "size must be from 2 to 16384"),
        ({"ball_speeds": [-(2**63)]}, "ball_speeds must be"),
        ({"ball_speeds": np.array([-128], np.int8)}, "ball_speeds must be"),
        ({"ball_speeds": [1, [2]]}, "ball_speeds must be"),
        ({"ball_speeds": (-1, 24)}, "ball_speeds must be"),
        ({"ball_speeds": ()}, "ball_speeds must be"),
        ({"ball_speeds": np.array([], int)}, "ball_speeds must be"),
        ({"ball_speeds": 1}, "ball_speeds must be"),
        ({"ball_speeds": (0.5,)}, "ball_speeds must be"),
        ({"paddle_start": "left"}, "paddle_start must be"),
    ],
)
@pytest.mark.parametrize("game", [Catch, GlimpseCatch])
def test_bad_options_are_named(game, options, message):
    with pytest.raises(ValueError, match=message):
        game(**options)


def test_what_a_game_is_without_options():
    whole, glimpsed = Catch(), GlimpseCatch(zoom_action=True, action_format="discrete")
    for game in (whole, glimpsed):
        assert (game.num_envs, game.scene_shape, game.ball_speeds.tolist()) == (1, (24, 24), [-1, 0, 1])
        assert game.paddle_start == "middle" and game.max_episode_steps == 23
    assert whole.observation_space == spaces.Box(0, 1, (24, 24)) and whole.action_space == spaces.Discrete(3)
    assert glimpsed.action_space == spaces.Discrete(5 * 5 * 3 * 2)  # Locations, moves, zooms.
    assert glimpsed.observation_space["glimpse"].shape == (3, 6, 6) and glimpsed.observation_space["zoom"].shape == (2,)
    assert set(GlimpseCatch().action_space) == {"location", "move"}


def test_limits_are_allowed():
    assert Catch(size=2, ball_speeds=(-1, 0, 1)).scene_shape == (2, 2)
    assert Catch(height=2, width=MAX_SIZE).scene_shape == (2, 16384)
    assert Catch(size=4, ball_speeds=(-3, 3)).ball_speeds.tolist() == [-3, 3]


def test_each_draw_in_its_place():
    game = GlimpseCatch(3, height=7, width=5, ball_speeds=(-2, 1), paddle_start="random", initial_location="random")
    game.seed(np.arange(3, dtype=np.uint64), ALL)
    draws, after = draw_uniform(game.streams, 5)
    game.begin(ALL, {})
    assert game.ball.tolist() == [[int(5 * draw), 0] for draw in draws[:, 0]]
    expected = [[(2 * column + 1) / 5 - 1, 1 / 7 - 1] for column in game.ball[:, 0]]  # The middle of a pixel.
    np.testing.assert_allclose(game.object_places(), expected, rtol=1e-12)
    assert game.speed.tolist() == [(-2, 1)[int(2 * draw)] for draw in draws[:, 1]]
    assert game.paddle.tolist() == [int(4 * draw) for draw in draws[:, 2]]
    np.testing.assert_allclose(game.gaze.locations, 2 * draws[:, 3:] - 1, rtol=1e-5)
    np.testing.assert_array_equal(game.streams, after)
    game.begin(np.array([False, True, False]), {"ball_column": 2, "ball_speed": [1, -2, 1]})
    assert (game.ball[1].tolist(), game.speed[1]) == ([2, 0], -2)  # Options do not shift the streams.
    np.testing.assert_array_equal(game.streams, [after[0], draw_uniform(after, 5)[1][1], after[2]])


def test_only_the_games_asked_for_go_on():
    game = Catch(3, size=6)
    assert not any(part.any() for part in game.get_state().values())  # No game has begun.
    game.begin(ALL, {"ball_column": [1, 2, 3], "ball_speed": [1, 0, -1]})
    before = game.observe()
    game.step([LEFT, LEFT, RIGHT], 3, np.array([True, False, True]))
    assert (game.ball.tolist(), game.paddle.tolist()) == ([[2, 1], [2, 0], [2, 1]], [1, 2, 3])
    screens = game.observe()
    np.testing.assert_array_equal(screens[1], before[1])
    assert [np.argwhere(one).tolist() for one in screens[::2]] == [[[1, 2], [5, 1], [5, 2]], [[1, 2], [5, 3], [5, 4]]]
    game.begin(np.array([False, True, False]), {"ball_column": [0, 5, 0], "ball_speed": 0})
    assert game.ball.tolist() == [[2, 1], [5, 0], [2, 1]] and game.speed.tolist() == [1, 0, -1]
    np.testing.assert_array_equal(game.observe()[::2], screens[::2])
    assert np.argwhere(game.observe()[1]).tolist() == [[0, 5], [5, 2], [5, 3]]


def test_a_new_game_forgets_the_old_one():
    game = Catch(2, size=3)
    for _ in range(2):
        game.begin(np.array([True, True]), {"ball_column": [1, 1], "ball_speed": [0, 1]})
        assert not game.terminated.any() and not game.info()["is_success"][0].any()
        assert game.step([STAY, STAY], 2, None).tolist() == [0, 0] and not game.terminated.any()
        assert game.frame(0).lines == ("step 1 of 2", "reward 0")
        assert game.step([STAY, LEFT], 2, None).tolist() == [1, 1]  # Columns 1 and, off the side, 1.
        assert game.terminated.all() and game.info()["is_success"][0].all()
    assert game.frame(0).lines == ("step 2 of 2", "caught", "reward 1")
    game.begin(np.array([False, True]), {"ball_column": 2, "ball_speed": 0})
    assert game.terminated.tolist() == [True, False] and game.info()["is_success"][0].tolist() == [True, False]
    game.step([STAY, LEFT], 2, np.array([False, True])), game.step([STAY, STAY], 2, np.array([False, True]))
    frame = game.frame(1, RIGHT)
    assert (1 / 16) ** frame.gamma == pytest.approx(0.4, abs=0.005)  # As bright as a ball in the coarsest patch is drawn.
    assert frame.lines == ("step 2 of 2", "missed", "reward 0")
    assert (frame.choice, frame.scores.tolist(), frame.names) == (RIGHT, [0, 0, 1], ("left", "stay", "right"))
    assert frame.look is None and np.argwhere(frame.scene).tolist() == [[2, 0], [2, 1], [2, 2]] and frame.scene.max() == 1


@pytest.mark.parametrize(
    ("game_class", "options"),
    [(Catch, {}), (GlimpseCatch, {"zoom_action": True, "initial_location": "random", "glimpse_size": 2, "num_scales": 1})],
)
def test_the_state_is_all_that_the_next_steps_depend_on(game_class, options):
    game, other = (game_class(3, size=5, paddle_start="random", **options) for _ in range(2))
    rng = np.random.default_rng(0)
    game.seed(np.arange(3, dtype=np.uint64), ALL)
    for t in range(9):
        other.seed(np.arange(90 + t, 93 + t, dtype=np.uint64), ALL)  # Whatever it did before.
        other.begin(ALL, {})
        other.set_state(game.get_state())
        action = rng.integers(3, size=3)
        if game_class is GlimpseCatch:
            action = {"location": rng.uniform(-1, 1, (3, 2)), "move": action, "zoom": rng.integers(2, size=3)}
        seen = []
        for one in (game, other):
            seen.append([one.observe(), one.info(), one.terminated.copy()])
            one.begin(ALL, {}) if t % 5 == 0 else one.step(action, 3, None)
            seen[-1] += [one.observe(), one.info(), one.terminated.copy()]
        np.testing.assert_equal(*seen)


def test_a_ball_that_was_caught_stays_caught_in_the_state():
    game, other = Catch(2, size=2), Catch(2, size=2)
    for one, column in ((game, 0), (other, 1)):
        one.begin(ALL[:2], {"ball_column": column, "ball_speed": 0})
    game.step([STAY, STAY], 2, np.array([True, False]))
    other.set_state(game.get_state())
    assert other.info()["is_success"][0].tolist() == [True, False] == other.terminated.tolist()
    assert other.frame(0).lines == game.frame(0).lines == ("step 1 of 1", "caught", "reward 1")


@pytest.mark.parametrize("game_class", [Catch, GlimpseCatch])
def test_the_first_game_is_drawn_unless_another_is_asked_for(game_class):
    game = game_class(3, size=5, num_scales=1) if game_class is GlimpseCatch else game_class(3, size=5)
    game.begin(ALL, {"ball_column": [1, 2, 3]})
    assert [int(game.frame(*env).scene[0].argmax()) for env in ((), (0,), (1,), (2,))] == [1, 1, 2, 3]


def test_zooms_are_offered_where_asked_for():
    game = GlimpseCatch(1, zoom_action=True, num_zooms=3, num_scales=1)
    assert game.choices == {"move": 3, "zoom": 3} and game.action_space["zoom"].n == 3
    game.begin(ALL[:1], {"ball_column": 0})
    game.step({"location": [0, 1], "move": LEFT, "zoom": 2}, None, None)
    seen = game.observe()
    assert seen["zoom"].tolist() == [[0, 0, 1]] and seen["glimpse"].sum() == pytest.approx(2 / 16)
    frame = game.frame(0, {"location": [0, 1], "move": LEFT, "zoom": 2})
    assert (frame.choice, frame.look.zoom, frame.look.widths.tolist()) == (LEFT, 2, [24])
    plain = GlimpseCatch(1, num_zooms=3)
    assert plain.choices == {"move": 3} and plain.gaze.retina.num_zooms == 1
    assert plain.action_space["move"].n == 3 and GlimpseCatch.render_fps == Catch.render_fps == 8


def test_the_statistics_are_of_balls_and_paddles_anywhere(monkeypatch):
    game = GlimpseCatch(1, height=4, width=5, glimpse_size=2)
    retina = game.gaze.retina
    monkeypatch.setattr(retina, "statistics", lambda fill: fill)
    screens = retina.blank_scenes(600)
    game.glimpse_statistics()(screens, np.random.default_rng(0))
    screens = retina.inner(screens)
    assert set(np.unique(screens)) == {0, 255}
    above = screens[:, :3].any(axis=0)  # Balls; in the bottom row they lie beside or upon the paddle.
    assert above.all() and (screens[:, :3] > 0).sum(axis=(1, 2)).max() == 1
    bottom = {tuple(np.flatnonzero(row)) for row in screens[(screens[:, :3] == 255).any(axis=(1, 2)), 3]}
    assert bottom == {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert {int(n) for n in (screens > 0).sum(axis=(1, 2))} == {2, 3}


def test_one_bad_option_among_good_ones_is_named():
    env = make_vec(3, "GlimpseCatch-v0")
    for bad in ({"ball_column": [0, 24, 3]}, {"ball_speed": [0, 1, -2]}, {"ball_column": [0, 1]}, {"ball_column": [[0, 1, 2]]}):
        with pytest.raises(ValueError, match=r"must be out of \[.*\], or 3 such, got"):
            env.reset(options=bad)
    env.reset(options={"ball_column": [0, 23, 3], "ball_speed": -1})
    assert env.unwrapped.task.ball[:, 0].tolist() == [0, 23, 3] and (env.unwrapped.task.speed == -1).all()


def test_bad_reset_options_are_named():
    env = make("GlimpseCatch-v0")
    for options in (
        {"ball_column": 24},
        {"ball_column": -1},
        {"ball_speed": 2},
        {"ball_speed": "fast"},
        {"ball_speed": 1.0},
        {"ball_column": True},
        {"ball_speed": [0, 1]},
        {"ball_column": [1, [2]]},
    ):
        with pytest.raises(ValueError, match=rf"options\['{next(iter(options))}'\] must be out of"):
            env.reset(options=options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ball", [0, 4], r"state\['ball'\] must lie between \(0, 0\) and \(4, 3\)"),
        ("ball", [5, 0], "must lie"),
        ("ball", [-1, 0], "must lie"),
        ("speed", 3, "must lie between -2 and 2"),
        ("paddle", 4, "must lie between 0 and 3"),
        ("paddle", -1, "must lie"),
        ("gaze.locations", np.nan, "must lie between -1.0 and 1.0"),
        ("gaze.zooms", 1, "must lie between 0 and 0"),
    ],
)
def test_a_state_that_no_game_has_is_refused(name, value, message):
    game = GlimpseCatch(3, height=4, width=5, ball_speeds=(-2, 1), glimpse_size=2)
    game.seed(np.arange(3, dtype=np.uint64), ALL)
    game.begin(ALL, {})
    before, state = game.get_state(), game.get_state()
    state[name][1] = value
    with pytest.raises(ValueError, match=message):
        game.set_state(state)
    assert all(np.array_equal(before[key], array) for key, array in game.get_state().items())


def test_a_game_that_is_over_in_a_state_stays_so():
    game = Catch(2, size=4)
    game.begin(np.ones(2, bool), {})
    state = game.get_state()
    state["ball"][:] = [[1, 3], [2, 3]]
    game.set_state(state)
    game.step(np.array([STAY, STAY]), 2, None)
    assert game.ball.tolist() == [[1, 3], [2, 3]]


@pytest.mark.parametrize("game_class", [Catch, GlimpseCatch])
def test_masks_and_moves_are_of_all_games(game_class):
    game = game_class(3, size=6)
    for where in (np.ones(2, bool), np.ones(3, int), [True] * 3):
        with pytest.raises(ValueError, match=r"where must be a mask \(3,\) of truths"):
            game.begin(where, {})
    game.begin(ALL, {})
    actions = [game.action_space.sample() for _ in range(5)]
    action = np.array(actions) if game_class is Catch else {name: np.array([one[name] for one in actions]) for name in actions[0]}
    with pytest.raises(ValueError, match="num_actions must be 3, the number of environments, got 5"):
        game.step(action, 5, None)
