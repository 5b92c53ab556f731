"""A person plays: by pygame's events to the games, and through the loop."""

import gymnasium as gym
import numpy as np
import pytest

import ram_envs
from ram_envs.play import main, new_game, play

pygame = pytest.importorskip("pygame")
pytestmark = pytest.mark.usefixtures("no_screen")

IMAGES, LABELS = np.full((6, 20, 20), 255, np.uint8), np.arange(6) % 3


def classification(full=False, seed=0, **kwargs):
    options = {"dataset": (IMAGES, LABELS), "initial_location": "center", "num_glimpses": 4, **kwargs}
    return new_game(gym.make("GlimpseClassification-v0", **options).unwrapped, full, seed)


def catch(env_id="GlimpseCatch-v0", full=False, seed=0, **kwargs):
    return new_game(gym.make(env_id, ball_speeds=(0,), **kwargs).unwrapped, full, seed)


def key(code, text="", kind=pygame.KEYDOWN):
    return pygame.event.Event(kind, key=code, unicode=text)


def digit(number):
    return key(ord(str(number)), str(number))


def mouse(kind, **attributes):
    return pygame.event.Event(kind, **attributes)


def post(*events):
    pygame.display.init()
    for event in events:
        pygame.event.post(event)


CLICK = mouse(pygame.MOUSEBUTTONDOWN, button=1, pos=(0, 0))


def test_what_is_not_seen_changes_no_picture_until_the_end():
    others = IMAGES.copy()
    others[:, 0, 0] = 0
    for full in (False, True):
        games = [
            classification(full, dataset=(images, labels)) for images, labels in ((IMAGES, LABELS), (others, (LABELS + 1) % 3))
        ]
        same = np.array_equal(*(game.picture() for game in games))
        assert same == (not full)
        # No answer is told before it is given, whatever is shown: the same digits under other names look the same.
        renamed = [classification(full, dataset=(IMAGES, labels)) for labels in (LABELS, (LABELS + 1) % 3)]
        np.testing.assert_array_equal(*(game.picture() for game in renamed))
    game = classification()
    hidden = game.picture()
    game.handle(digit(0))
    while not game.is_over:
        game.advance()
    game.full = True
    revealed = game.picture()
    game.full = False
    np.testing.assert_array_equal(game.picture(), revealed)
    assert (revealed != hidden).any()


def test_a_click_looks_there():
    game = classification(glimpse_size=4)
    game.handle(CLICK, (345, 135))  # The scene of 420 pixels begins at pixel 30.
    assert game.task.steps[0] == 0
    game.advance()
    assert game.task.gaze.locations[0].tolist() == [0.5, -0.5]
    game.handle(key(pygame.K_SPACE, " "))
    game.advance()
    game.advance()  # Nothing is asked for.
    assert game.task.steps[0] == 2
    assert game.task.gaze.locations[0].tolist() == [0.5, -0.5]
    assert game.frame().choice is None  # Nothing has been said.


def test_the_last_step_is_left_for_the_answer():
    game = classification()  # 4 glimpses.
    for _ in range(6):
        game.handle(CLICK, (100, 100))
        game.advance()
    assert game.task.steps[0] == 3
    assert game.note() == "right 0 of 0    no look left: what is it?"
    game.handle(digit(game.task.labels[0]))
    game.advance()
    assert game.is_over
    assert game.note() == "right 1 of 1"


@pytest.mark.parametrize("action_format", ["dict", "box", "multidiscrete", "discrete"])
def test_answers_count(action_format):
    game = classification(action_format=action_format)
    for answer, note in ((game.task.labels[0], "right 1 of 1"), (None, "right 1 of 2")):
        game.handle(digit((game.task.labels[0] + 1) % 3 if answer is None else answer))
        while not game.is_over:
            game.advance()
        assert game.note() == note
        game.handle(CLICK, (100, 100))  # Goes on at once.
        assert not game.is_over


def test_an_answer_stops_where_the_environment_can_be_stopped():
    game = classification(stop_action=True)
    game.handle(digit(0))
    game.advance()
    assert game.is_over
    assert game.task.steps[0] == 1


def test_many_classes_are_typed():
    game = classification(dataset=ram_envs.ImageSet("digits", IMAGES, LABELS + 10, num_classes=13))
    enter = key(pygame.K_RETURN, "\r")
    for event in (digit(1), digit(9), key(pygame.K_BACKSPACE, "\b"), digit(1)):
        game.handle(event)
        game.advance()
    assert game.note() == "right 0 of 0    class 11_"
    assert game.task.steps[0] == 0
    game.handle(enter)
    game.advance()
    assert game.frame().choice == 11
    game.restart()
    for event in (digit(9), digit(9), enter, enter):  # There is no such class.
        game.handle(event)
        game.advance()
    assert game.task.steps[0] == 0
    assert game.note() == "right 0 of 0"


def test_zoom_is_chosen_for_the_next_look():
    game = classification(zoom_action=True, num_zooms=3, glimpse_size=4)
    wheel = mouse(pygame.MOUSEWHEEL, y=1)
    for event in (wheel, wheel, wheel, key(pygame.K_MINUS, "-")):
        game.handle(event)
    assert game.note() == "right 0 of 0    next zoom 1"
    game.handle(key(pygame.K_SPACE, " "))
    game.advance()
    assert game.task.gaze.zooms[0] == 1
    game.handle(key(pygame.K_PLUS, "+"))
    assert game.zoom == 2
    game.restart()
    assert game.zoom == 0
    plain = classification()
    assert plain.note() == plain.help
    plain.handle(wheel)
    assert plain.note() == "right 0 of 0"


def test_keys_move_the_paddle_and_the_mouse_the_gaze():
    game = catch()
    begin = game.task.paddle[0]
    game.handle(key(pygame.K_LEFT))
    game.handle(mouse(pygame.MOUSEMOTION, pos=(0, 0)), (132, 348))  # The scene of 432 pixels begins at pixel 24.
    game.advance()
    game.advance()
    assert game.task.paddle[0] == begin - 2
    assert game.task.gaze.locations[0].tolist() == [-0.5, 0.5]
    game.handle(key(pygame.K_LEFT, kind=pygame.KEYUP))
    game.handle(key(pygame.K_RIGHT))
    game.handle(key(pygame.K_RIGHT, kind=pygame.KEYUP))  # A short press counts once.
    game.advance()
    game.advance()
    assert game.task.paddle[0] == begin - 1
    game.handle(key(pygame.K_LEFT))
    game.handle(mouse(pygame.WINDOWFOCUSLOST))
    game.advance()
    game.advance()
    assert game.task.paddle[0] == begin - 2


def test_a_faint_ball_is_made_visible():
    game = catch(initial_location=(0, -1))
    game.env.reset(options={"ball_column": 1})
    assert game.frame().look.glimpse[2].max() == 1 / 16
    assert game.picture()[24 + 9, 24 + 18 + 9, 0] == 101  # The cube root of 1/16 is 0.397.


@pytest.mark.parametrize("env_id", ["GlimpseCatch-v0", "Catch-v0"])
@pytest.mark.parametrize("event", [key(pygame.K_LEFT), key(pygame.K_a, "a"), CLICK], ids=["an arrow", "a letter", "a click"])
def test_the_ball_waits_for_a_key(env_id, event):
    game = catch(env_id)
    game.handle(mouse(pygame.MOUSEMOTION, pos=(0, 0)), (132, 348))
    for _ in range(3):
        game.advance()
    assert game.task.ball[0, 1] == 0
    assert "any key starts" in game.note()
    game.handle(event, (132, 348) if event is CLICK else None)
    game.advance()
    assert game.task.ball[0, 1] == 1
    assert game.note() == "caught 0 of 0"
    game.restart()
    game.advance()  # The next ball comes at once.
    assert game.task.ball[0, 1] == 1


def test_the_window_is_called_by_the_id(monkeypatch):
    titles = []

    class Named(pygame.Window):
        def __init__(self, title, *args, **kwargs):
            titles.append(title)
            super().__init__(title, *args, **kwargs)

    monkeypatch.setattr(pygame, "Window", Named)
    play(catch(), fps=1000, max_frames=1)
    assert titles == ["GlimpseCatch-v0"]


def start_with_ball_at_the_left(game):
    """So that holding the left arrow key catches it."""
    for seed in range(100):
        game.restart(seed)
        if game.task.ball[0, 0] == 0:
            return
    raise AssertionError("no such seed")


@pytest.mark.parametrize("env_id", ["GlimpseCatch-v0", "Catch-v0"])
def test_a_game_of_catch_is_won_by_posted_events(env_id):
    game = catch(env_id)
    start_with_ball_at_the_left(game)
    post(key(pygame.K_LEFT))
    play(game, fps=1000, max_frames=23)
    assert game.note() == "caught 1 of 1"
    assert not pygame.display.get_init()


def test_the_end_is_shown_for_a_while_and_the_next_episode_begins():
    game = catch("Catch-v0", size=4)
    post(key(pygame.K_UP))
    play(game, fps=3, max_frames=3)
    assert game.is_over
    play(game, fps=1000, max_frames=3)
    assert game.is_over
    game.pause = 0.002
    play(game, fps=1000, max_frames=3)
    assert not game.is_over
    assert game.played == 1


def test_an_image_is_named_by_posted_events():
    game = classification()
    post(mouse(pygame.MOUSEBUTTONDOWN, button=1, pos=(345, 135)), digit(game.task.labels[0]))
    play(game, fps=1000, max_frames=4)
    assert game.note() == "right 1 of 1"


def test_restarting_counts_nothing():
    game = catch()
    game.advance()
    game.handle(key(pygame.K_r, "r"))
    assert game.task.ball[0, 1] == 0
    assert game.played == 0


@pytest.mark.parametrize(
    "event", [key(pygame.K_ESCAPE), mouse(pygame.QUIT), mouse(pygame.WINDOWCLOSE)], ids=["Esc", "quit", "close"]
)
def test_the_person_ends_it(event):
    game = catch()
    post(event)
    play(game, fps=1000, max_frames=1000)
    assert game.is_ended
    assert game.task.ball[0, 1] <= 1


def test_command_line(capsys):
    post(key(pygame.K_ESCAPE))
    main(["GlimpseCatch-v0", "--full", "--fps", "100", "--seed", "3", "--env-kwargs", "size:30", "paddle_start:random"])
    assert capsys.readouterr().out.endswith("caught 0 of 0\n")
    for arguments, message in (
        (["CartPole-v1"], "no controls"),
        (["Glimpse-v7"], "Glimpse"),
        (["Catch-v0", "--env-kwargs", "size"], "'size' must have the form"),
        (["Catch-v0", "--env-kwargs", "sise:3"], "'sise' is not an option"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err
