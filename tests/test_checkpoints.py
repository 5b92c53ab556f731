"""A stopped run resumes and ends as an unbroken one, bit for bit, with every kind of algorithm."""

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecMonitor

from agents import EpisodePPO, get_algorithm, make_vec_env
from agents.training.callbacks import ResumeCallback, Stopwatch, TimedEvalCallback
from agents.training.checkpoints import resume
from agents.vec_env import GymnasiumVecEnv

N = 4
MNIST = ("GlimpseMNIST-v0", {"dataset": "mnist-5k", "num_glimpses": 3, "image_order": "shuffled"})
CATCH = ("GlimpseCatch-v0", {"size": 6, "location_grid": 2, "paddle_start": "random"})
NET = {"policy_kwargs": {"net_arch": [8]}}
OFF_POLICY = {"learning_starts": 64, "batch_size": 8, "buffer_size": 30, **NET}  # Draws at random before and after the stop.
EXPLORING = {**OFF_POLICY, "learning_starts": 8, "exploration_final_eps": 0.7}
PPO = {"n_steps": 4, "batch_size": 8, "n_epochs": 1, **NET}  # Rollouts that end in mid-episode.
LSTM = {"policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [8]}}
NOISE = NormalActionNoise(np.zeros(5), 0.2 * np.ones(5))
CASES = {
    "ram": ("ram", MNIST, {"learning_rate": LinearSchedule(1e-3, 0, 1)}),
    "ram with all levers": (
        "ram",
        (MNIST[0], {**MNIST[1], "warp": 2.0}),
        {
            "location_reward": "gain",
            "gamma": 0.5,
            "final_location_std": 0.02,
            "weight_average": 0.3,
            "policy_kwargs": {
                **{"glimpse_network": "retina", "core": "lstm", "baseline_by_class": True},
                **{"location_input": "saliency", "location_hidden": 8, "path_steps": 2},
                **{"hidden_size": 8, "core_size": 16, "muon_scale": 2.0},  # Muon takes seconds for large layers.
                "dropout": 0.2,
            },
        },
    ),
    "ram of several epochs": ("ram", CATCH, {"class_loss": "reinforce", "n_epochs": 2, "n_minibatches": 2, "n_steps": 4}),
    "ram_random": ("ram_random", MNIST, {}),
    "cnn": ("cnn", ("GlimpseMNIST-v0", {"dataset": "mnist-5k", "image_order": "shuffled"}), {}),
    "episode_ppo": ("episode_ppo", CATCH, {"n_steps": 4, "n_epochs": 2, "n_minibatches": 2, "policy_kwargs": {"core_size": 8}}),
    "episode_a2c": ("episode_a2c", MNIST, {"n_steps": 2, "policy_kwargs": {"core": "gru", "core_size": 8}}),
    "recurrent_ppo": ("recurrent_ppo", CATCH, {**PPO, **LSTM, "learning_rate": LinearSchedule(1e-3, 0, 1)}),
    "ppo": ("ppo", CATCH, PPO),
    "ppo with frames": ("ppo", ("GlimpseMNIST-v0", {**MNIST[1], "frame_stack": 3}), PPO),
    "a2c": ("a2c", CATCH, {"n_steps": 3, **NET}),
    "dqn": ("dqn", CATCH, {**EXPLORING, "exploration_fraction": 1.0, "target_update_interval": 20}),
    "dqn with frames": ("dqn", ("GlimpseCatch-v0", {**CATCH[1], "frame_stack": 2}), EXPLORING),
    "sac": ("sac", CATCH, OFF_POLICY),
    "td3": ("td3", ("GlimpseCatch-v0", {**CATCH[1], "frame_stack": 2}), {**OFF_POLICY, "action_noise": NOISE}),
}
TOTAL, EVERY, STOP = 96, 24, 60  # Steps; stopped after two checkpoints, in mid-rollout where there are rollouts.


class StopAt(BaseCallback):
    def _on_step(self):
        return self.model.num_timesteps < STOP


def make_env(case, split="train"):
    algo, (env_id, env_kwargs), _ = CASES[case]
    if "MNIST" in env_id and split != "train":
        env_kwargs = {**env_kwargs, "split": split, "image_order": "sequential"}
    return make_vec_env(env_id, N, **get_algorithm(algo).env_kwargs(env_id, env_kwargs))


def make_evaluation(case, folder):
    folder.mkdir(exist_ok=True)
    options = {"eval_seed": 5, "n_eval_episodes": 8, "log_path": str(folder), "verbose": 0}
    return TimedEvalCallback(Stopwatch(), make_env(case, "validation"), eval_steps=EVERY, **options)


def learn(case, model, evaluation, path, *others):
    keeper = ResumeCallback(path, evaluation)
    left = TOTAL - model.num_timesteps
    return model.learn(left, [evaluation, keeper, *others], reset_num_timesteps=model.num_timesteps == 0)


def make_model(case):
    algorithm = get_algorithm(CASES[case][0])
    return algorithm.make(make_env(case), {**algorithm.hyperparams, **CASES[case][2]}, seed=3, device="cpu")


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_an_unbroken_one(case, tmp_path):
    if case == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    unbroken = learn(case, make_model(case), make_evaluation(case, tmp_path / "one"), tmp_path / "one.pkl")
    learn(case, make_model(case), make_evaluation(case, tmp_path / "two"), tmp_path / "two.pkl", StopAt())
    torch.manual_seed(99), np.random.seed(99)  # noqa: NPY002 (what happens in between must not matter)
    evaluation = make_evaluation(case, tmp_path / "two")
    model, progress = resume(get_algorithm(CASES[case][0]).load, tmp_path / "two.pkl", make_env(case), device="cpu")
    evaluation.set_state(progress)
    assert EVERY <= model.num_timesteps < STOP
    resumed = learn(case, model, evaluation, tmp_path / "two.pkl")
    assert resumed.num_timesteps == unbroken.num_timesteps
    parameters = [one.get_parameters() for one in (unbroken, resumed)]
    assert_same(*parameters, "parameters")
    with np.load(tmp_path / "one/evaluations.npz") as first, np.load(tmp_path / "two/evaluations.npz") as second:
        for name in ("timesteps", "results", "ep_lengths", "successes"):
            np.testing.assert_array_equal(first[name], second[name])
        assert (np.diff(second["train_seconds"]) > 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", ["ram", "ram with all levers", "episode_a2c"])
@pytest.mark.parametrize(("before", "after"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_run_resumes_on_another_device(case, before, after, tmp_path):
    algorithm = get_algorithm(CASES[case][0])
    model = algorithm.make(make_env(case), {**algorithm.hyperparams, **CASES[case][2]}, seed=3, device=before)
    learn(case, model, make_evaluation(case, tmp_path / "run"), tmp_path / "run.pkl", StopAt())
    evaluation = make_evaluation(case, tmp_path / "run")
    model, progress = resume(algorithm.load, tmp_path / "run.pkl", make_env(case), device=after)
    evaluation.set_state(progress)
    assert learn(case, model, evaluation, tmp_path / "run.pkl").num_timesteps >= TOTAL


def assert_same(one, other, where):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_same(one[name], other[name], f"{where} {name}")
    elif isinstance(one, (list, tuple)):
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where} {i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


class Counted(gym.Env):
    """Ends after five steps; it can't tell its state."""

    observation_space, action_space = gym.spaces.Box(0, 5, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.time, np.float32), 1.0, self.time == 5, False, {"is_success": True}


def make_counted(folder):
    env, eval_env = (GymnasiumVecEnv(SyncVectorEnv([Counted] * 2, autoreset_mode="SameStep")) for _ in range(2))
    options = {"eval_steps": 16, "n_eval_episodes": 2, "log_path": str(folder), "verbose": 0}
    return VecMonitor(env), TimedEvalCallback(Stopwatch(), VecMonitor(eval_env), **options)


def test_environments_that_can_not_tell_their_state_begin_anew(tmp_path):
    (env, evaluation), path = make_counted(tmp_path), tmp_path / "checkpoint.pkl"
    model = EpisodePPO("RecurrentPolicy", env, n_steps=3, seed=0, device="cpu")
    model.learn(30, [evaluation, ResumeCallback(path, evaluation)])
    env, evaluation = make_counted(tmp_path)
    resumed, progress = resume(EpisodePPO.load, path, env, device="cpu")
    evaluation.set_state(progress)
    assert resumed.num_timesteps == 18
    assert evaluation.evaluations_timesteps == [16]
    seen, forward = [], resumed.policy.forward
    resumed.policy.forward = lambda obs, state: (
        seen.append((obs.flatten().tolist(), state[-1].flatten().tolist())) or forward(obs, state)
    )
    resumed.learn(12, [evaluation, ResumeCallback(path, evaluation)], reset_num_timesteps=False)
    assert resumed.num_timesteps == 30
    assert seen[0] == ([0, 0], [0, 0])  # The first steps of new episodes.
    assert evaluation.evaluations_timesteps == [16, 30]


def test_a_checkpoint_is_written_after_each_evaluation(tmp_path):
    (env, evaluation), path = make_counted(tmp_path), tmp_path / "checkpoint.pkl"
    written = []

    class Note(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            if path.exists():
                written.append(self.model.num_timesteps)
                path.unlink()

    model = EpisodePPO("RecurrentPolicy", env, n_steps=3, seed=0, device="cpu")
    model.learn(60, [evaluation, ResumeCallback(path, evaluation), Note()])
    assert evaluation.evaluations_timesteps == [16, 32, 48, 60]
    assert written == [18, 36, 48]  # When the next rollout begins; not when there is none.


class DiesWhenStored:
    def __reduce__(self):
        raise KeyboardInterrupt


def test_a_kill_while_writing_leaves_the_old_checkpoint(tmp_path):
    (env, evaluation), path = make_counted(tmp_path), tmp_path / "checkpoint.pkl"
    model = EpisodePPO("RecurrentPolicy", env, n_steps=3, seed=0, device="cpu")
    model.learn(30, [evaluation, ResumeCallback(path, evaluation)])
    before = path.read_bytes()
    env, evaluation = make_counted(tmp_path)
    model = EpisodePPO("RecurrentPolicy", env, n_steps=3, seed=0, device="cpu")
    model.replay_buffer = DiesWhenStored()
    with pytest.raises(KeyboardInterrupt):
        model.learn(30, [evaluation, ResumeCallback(path, evaluation)])
    assert path.read_bytes() == before
