import numpy as np
import pytest
from test_rendering import colours_in, make, make_vec, picture_of

pygame = pytest.importorskip("pygame")
pytestmark = pytest.mark.usefixtures("no_screen")


def window_of(env):
    return env.unwrapped._renderer._window


def test_window_shows_each_step_by_itself():
    env, drawn = make(render_mode="human", action_format="box"), make(action_format="box")
    picture = picture_of(drawn, seed=0)
    env.reset(seed=0)
    np.testing.assert_array_equal(colours_in(window_of(env)._window.get_surface()), picture)
    action = env.action_space.sample()
    env.step(action), drawn.step(action)
    np.testing.assert_array_equal(colours_in(window_of(env)._window.get_surface()), drawn.render())
    assert env.render() is None
    env.close()
    env.close()
    assert not pygame.display.get_init()


def test_window_is_answered_and_closed_by_the_person():
    env, other = make(render_mode="human"), make("Catch-v0", render_mode="human")
    env.reset(seed=0), other.reset(seed=0)
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=(1, 1), rel=(0, 0), buttons=(0, 0, 0), touch=False))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_a, unicode="a"))
    pygame.event.post(pygame.event.Event(pygame.WINDOWCLOSE, window=window_of(env)._window))
    other.step(1)  # Any window hears what is asked of the others.
    assert window_of(env).is_closed
    assert not window_of(other).is_closed
    assert [event.key for event in pygame.event.get(exclude=[]) if event.type == pygame.KEYDOWN] == [pygame.K_a]
    assert not pygame.event.peek(pygame.MOUSEMOTION)
    env.step(env.action_space.sample())  # The program goes on.
    assert window_of(env)._window is None
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    other.step(1)
    other.step(1)
    assert window_of(other).is_closed
    assert not pygame.display.get_init()


def test_closing_one_window_leaves_the_other():
    env, other = make("Catch-v0", render_mode="human"), make("Catch-v0", render_mode="human")
    env.reset(seed=0), other.reset(seed=0)
    env.close()
    other.step(1)
    assert colours_in(window_of(other)._window.get_surface()).any()
    pygame.quit()  # As Gymnasium's own environments do when they close: the window comes back.
    other.step(1)
    assert colours_in(window_of(other)._window.get_surface()).any()
    other.close()


def test_window_keeps_its_picture_whole_at_any_size():
    env = make("Catch-v0", render_mode="human")
    env.reset(seed=0)
    window = window_of(env)
    picture = np.full((480, 664, 3), 200, np.uint8)
    window._window.size = (664, 1000)
    window.draw(picture)
    shown = colours_in(window._window.get_surface())
    assert shown.shape == (1000, 664, 3)
    assert (shown[260:740] == 200).all()
    assert not shown[:260].any()
    assert not shown[740:].any()
    assert window.to_picture((0, 260), picture) == (0, 0)
    env.close()


def test_window_holds_the_frames_per_second(monkeypatch):
    ticks = []

    class Clock:
        def tick(self, fps):
            ticks.append(fps)

    monkeypatch.setattr(pygame.time, "Clock", Clock)
    env = make("Catch-v0", render_mode="human")
    env.reset(seed=0)
    env.step(1)
    env.step(1)
    assert ticks == [8, 8, 8]
    env.close()


def test_many_environments_share_one_window():
    envs = make_vec(18, render_mode="human").unwrapped
    envs.reset(seed=0)
    width, height = envs._renderer._window._window.size
    assert width / height == pytest.approx(832 / 480, rel=0.02)  # A grid of 4 x 4.
    envs.step(envs.action_space.sample())
    assert envs.render() is None
    assert len(envs._renderer._draw()) == 16
    envs.close()
    assert not pygame.display.get_init()
