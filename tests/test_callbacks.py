import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecEnvWrapper

from ram_envs.agents import RAM, make_vec_env
from ram_envs.agents.training.callbacks import ProgressCallback, Stopwatch, TimedEvalCallback, TimeLimitCallback, on_the_clock

N, T = 8, 3


def vec_env(num_envs=N, **kwargs):
    options = {"dataset": "mnist-5k", "num_glimpses": T, "image_order": "shuffled", **kwargs}
    return make_vec_env("GlimpseMNIST-v0", num_envs, **options)


def catch(**kwargs):
    return make_vec_env("GlimpseCatch-v0", 2, size=6, location_grid=1, **kwargs)


def make_evaluation(folder, stopwatch=None, **kwargs):
    return TimedEvalCallback(
        stopwatch or Stopwatch(),
        vec_env(split="validation", image_order="sequential"),
        n_eval_episodes=16,
        log_path=str(folder),
        best_model_save_path=str(folder),
        verbose=0,
        **kwargs,
    )


class Ticks(Stopwatch):
    """A clock that goes one second further each time that a step has been made."""

    def used(self):
        return float(self.ticks)

    ticks = 0


class TickingLimit(TimeLimitCallback):
    def _on_step(self):
        self.stopwatch.ticks += 1
        return super()._on_step()


def test_evaluations_tell_the_training_time(tmp_path):
    told = []
    evaluation = make_evaluation(tmp_path, eval_steps=N * T * 5, report=lambda *values: told.append(values))
    RAM("RAMPolicy", vec_env(), seed=0, device="cpu").learn(N * T * 12, evaluation)
    saved = np.load(tmp_path / "evaluations.npz")
    assert saved["timesteps"].tolist() == [N * T * 5, N * T * 10, N * T * 12]  # The last one at the end.
    assert saved["results"].shape == saved["successes"].shape == (3, 16)
    assert (np.diff(saved["train_seconds"]) > 0).all()
    assert (np.diff(saved["cpu_seconds"]) > 0).all()
    assert evaluation.stopwatch.read()[0] == pytest.approx(saved["train_seconds"][-1], abs=0.01)
    assert (tmp_path / "best_model.zip").exists()
    errors = (100 * (1 - saved["successes"].mean(axis=1))).tolist()
    assert told == list(zip(saved["timesteps"].tolist(), errors, strict=True))


@pytest.mark.parametrize(
    ("eval_steps", "expected"),
    [
        (1, range(8, 49, 8)),  # After each step: there is no time between.
        (20, [24, 40, 48]),  # As soon as 20, 40 have gone by, and at the end.
        (24, [24, 48]),
        (1000, [48]),
    ],
)
def test_evaluations_by_steps(tmp_path, eval_steps, expected):
    RAM("RAMPolicy", vec_env(), seed=0, device="cpu").learn(48, make_evaluation(tmp_path, eval_steps=eval_steps))
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == list(expected)


def test_evaluations_by_the_clock(tmp_path):
    watch = Ticks()
    evaluation = make_evaluation(tmp_path, watch, eval_seconds=4)
    RAM("RAMPolicy", vec_env(), seed=0, device="cpu").learn(10**9, [TickingLimit(watch, 11), evaluation])
    # One step of N environments a second: after 4 and 8, and when the 11 are over.
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [4 * N, 8 * N, 11 * N]


def test_what_the_report_raises_ends_the_training(tmp_path):
    class Pruned(Exception):
        pass

    def report(steps, error):
        if steps >= N * T * 4:
            raise Pruned

    model = RAM("RAMPolicy", vec_env(), seed=0, device="cpu")
    with pytest.raises(Pruned):
        model.learn(10**9, make_evaluation(tmp_path, eval_steps=N * T * 2, report=report))
    assert model.num_timesteps == N * T * 4
    assert len(np.load(tmp_path / "evaluations.npz")["timesteps"]) == 2  # The last one is written all the same.


class Seen(VecEnvWrapper):
    """Keeps the first observations after each reset."""

    def __init__(self, venv):
        super().__init__(venv)
        self.first = []

    def reset(self):
        obs = self.venv.reset()
        self.first.append(obs["location"])
        return obs

    def step_wait(self):
        return self.venv.step_wait()


@pytest.mark.parametrize(("seed", "same"), [(5, True), (None, False)])
def test_seeded_evaluations_have_the_same_episodes(seed, same, tmp_path):
    env = Seen(catch(initial_location="random"))
    evaluation = TimedEvalCallback(
        Stopwatch(), env, eval_seed=seed, eval_steps=16, n_eval_episodes=4, log_path=str(tmp_path), verbose=0
    )
    RAM("RAMPolicy", Seen(catch()), class_loss="reinforce", seed=0, device="cpu").learn(32, evaluation)
    first, second, *_ = env.first
    assert (first == second).all() == same


def test_a_state_is_taken_over(tmp_path):
    first, second = (make_evaluation(tmp_path, eval_steps=N * T) for _ in range(2))
    RAM("RAMPolicy", vec_env(), seed=0, device="cpu").learn(N * T * 2, first)
    second.set_state(first.get_state())
    assert second.evaluations_timesteps == [N * T, N * T * 2]
    assert second.seconds == first.seconds
    assert second.best_mean_reward == first.best_mean_reward > -1


def test_the_clock_ends_training(tmp_path):
    evaluation = make_evaluation(tmp_path, eval_steps=10**9)
    model = on_the_clock(RAM("RAMPolicy", vec_env(), learning_rate=LinearSchedule(0.01, 0.0, 1.0), seed=0, device="cpu"))
    model.learn(10**9, [evaluation, TimeLimitCallback(evaluation.stopwatch, 0.3)])
    assert 0 < model.num_timesteps < 10**9
    assert evaluation.stopwatch.read()[0] >= 0.3
    assert 0 <= model.policy.optimizer.param_groups[0]["lr"] < 0.01


def test_rates_and_clips_follow_the_clock():
    """10 seconds, and rollouts of 4: PPO learns after 4 and after 8 of them."""
    model = on_the_clock(
        PPO(
            "MultiInputPolicy",
            catch(action_format="multidiscrete"),
            learning_rate=LinearSchedule(1.0, 0.0, 1.0),
            clip_range=LinearSchedule(0.5, 0.1, 1.0),
            n_steps=4,
            batch_size=8,
            n_epochs=1,
            device="cpu",
        )
    )
    rates, clips, clip_range = [], [], model.clip_range

    def note(progress):
        clips.append(clip_range(progress))
        rates.append(model.policy.optimizer.param_groups[0]["lr"])  # Set before.
        return clips[-1]

    model.clip_range = note
    model.learn(10**9, TickingLimit(Ticks(), 10))
    assert rates == pytest.approx([0.6, 0.2])
    assert clips == pytest.approx([0.5 - 0.4 * 0.4, 0.5 - 0.8 * 0.4])
    assert model.num_timesteps == 20  # 10 steps of 2.
    assert isinstance(model, PPO)
    assert type(model).__name__ == "PPO"


def test_exploration_follows_the_clock():
    """From 1 to 0.1 in the first half of 8 seconds."""
    model = on_the_clock(
        DQN(
            "MultiInputPolicy",
            catch(action_format="discrete"),
            learning_starts=10**6,
            buffer_size=100,
            exploration_fraction=0.5,
            exploration_final_eps=0.1,
            device="cpu",
        )
    )

    class Note(BaseCallback):
        def _on_step(self):
            rates.append(self.model.exploration_rate)
            return True

    rates = []
    model.learn(10**9, [Note(), TickingLimit(Ticks(), 8)])
    # SB3 sets the rate after each step, from the time used up to it; the first steps are drawn at random anyway.
    assert rates[1:] == pytest.approx([1 - 0.9 * tick / 4 for tick in (1, 2, 3, 4)] + [0.1] * 3)


def test_entropy_follows_the_clock():
    seen = []

    def weight(progress):
        seen.append(progress)
        return progress

    model = RAM("RAMPolicy", catch(), class_loss="reinforce", ent_coef=weight, seed=0, device="cpu", n_steps=2)
    seen.clear()  # Where it begins is looked at first.
    on_the_clock(model).learn(10**9, TickingLimit(Ticks(), 40))
    assert seen == pytest.approx([1 - second / 40 for second in range(2, 40, 2)])  # At the last there is nothing more to learn.


def test_a_model_on_the_clock_is_saved_as_its_own_kind(tmp_path):
    model = on_the_clock(RAM("RAMPolicy", vec_env(), learning_rate=ConstantSchedule(1e-3), seed=0, device="cpu"))
    model.learn(10**9, TickingLimit(Ticks(), T))
    model.save(tmp_path / "model.zip")
    loaded = RAM.load(tmp_path / "model.zip", env=vec_env(), device="cpu")
    assert type(loaded) is RAM
    loaded.learn(N * T)  # By steps again.
    assert loaded._current_progress_remaining == 0
    assert type(on_the_clock(loaded)) is type(model)


def test_a_progress_bar_of_seconds(tmp_path):
    watch = Ticks()
    evaluation = make_evaluation(tmp_path, watch, eval_seconds=3)
    progress = ProgressCallback(evaluation, seconds=4)
    RAM("RAMPolicy", vec_env(), seed=0, device="cpu").learn(10**9, [evaluation, TickingLimit(watch, 4), progress])
    assert (progress.bar.n, progress.bar.total) == (4, 4)


def test_the_validation_error_stands_beside_the_progress_bar_as_it_comes(tmp_path):
    told = []

    class Note(BaseCallback):
        def _on_step(self):
            told.append((progress.bar.n, progress.bar.desc))
            return True

    evaluation = make_evaluation(tmp_path, eval_steps=N * T)
    progress, games = ProgressCallback(evaluation), ProgressCallback(evaluation, success_name="balls caught")
    model = RAM("RAMPolicy", vec_env(), seed=0, device="cpu")
    model.learn(N * T, [evaluation, games])
    model.learn(N * T, [evaluation, progress, Note()], reset_num_timesteps=False)  # Resumed: the bar begins at 0.
    errors = 100 * (1 - np.load(tmp_path / "evaluations.npz")["successes"].mean(axis=1))
    words = [f"validation error {error:.2f} %" for error in errors]
    assert told == [(N, words[0]), (2 * N, words[0]), (3 * N, words[1])]
    assert progress.bar.total == N * T
    assert games.bar.desc == f"balls caught {100 - errors[0]:.2f} %"


def test_stopwatch_leaves_pauses_out():
    watch = Stopwatch(wall=5.0, cpu=2.0)
    assert watch.read() == (5.0, 2.0)
    watch.start()
    sum(range(100_000))
    watch.pause()
    wall, cpu = watch.read()
    assert wall > 5.0
    assert cpu > 2.0
    sum(range(100_000))
    assert watch.read() == (wall, cpu)


def test_stopwatch_counts_by_one_of_two_clocks():
    assert Stopwatch(wall=5.0, cpu=2.0).used() == 5.0
    assert Stopwatch(wall=5.0, cpu=2.0, clock="cpu").used() == 2.0
    with pytest.raises(ValueError, match=r"clock must be one of \('wall', 'cpu'\), got 'gpu'"):
        Stopwatch(clock="gpu")


def test_environments_without_success_are_named(tmp_path):
    env, eval_env = make_vec_env("CartPole-v1", 2), make_vec_env("CartPole-v1", 2)
    evaluation = TimedEvalCallback(Stopwatch(), eval_env, eval_steps=16, n_eval_episodes=2, log_path=str(tmp_path), verbose=0)
    with pytest.raises(ValueError, match=r'env must give info\["is_success"\] at the end of each episode'):
        PPO("MlpPolicy", env, n_steps=8, batch_size=16, device="cpu").learn(32, evaluation)


@pytest.mark.parametrize("kwargs", [{}, {"eval_steps": 5, "eval_seconds": 5}])
def test_steps_or_seconds_are_given(tmp_path, kwargs):
    with pytest.raises(ValueError, match="give one of eval_steps and eval_seconds"):
        make_evaluation(tmp_path, **kwargs)
