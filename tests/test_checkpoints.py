"""A stopped run resumes and ends as an unbroken one, bit for bit, with every kind of algorithm."""

import base64
import errno
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import zipfile
from collections import deque
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecMonitor

from ram_envs.agents import EpisodePPO, get_algorithm, make_vec_env
from ram_envs.agents.training import checkpoints
from ram_envs.agents.training.callbacks import ResumeCallback, Stopped, Stopwatch, TimedEvalCallback
from ram_envs.agents.training.checkpoints import (
    CHECKPOINT,
    PREVIOUS,
    check_space,
    checkpoints_in,
    link,
    load_weights,
    read_checkpoint,
    remove_checkpoints,
    restore,
    save_checkpoint,
    write_text,
    written,
)
from ram_envs.agents.vec_env import GymnasiumVecEnv

N = 4
MNIST = ("GlimpseMNIST-v0", {"dataset": "mnist-5k", "num_glimpses": 3, "image_order": "shuffled"})
CATCH = ("GlimpseCatch-v0", {"size": 6, "location_grid": 2, "paddle_start": "random"})
NET = {"policy_kwargs": {"net_arch": [8]}}
OFF_POLICY = {"learning_starts": 64, "batch_size": 8, "buffer_size": 30, **NET}  # Draws at random before and after the stop.
EXPLORING = {**OFF_POLICY, "learning_starts": 8, "exploration_final_eps": 0.7}
SHORT = {"n_steps": 4, "batch_size": 8, "n_epochs": 1, **NET}  # Rollouts that end in mid-episode.
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
    "recurrent_ppo": ("recurrent_ppo", CATCH, {**SHORT, **LSTM, "learning_rate": LinearSchedule(1e-3, 0, 1)}),
    "ppo": ("ppo", CATCH, SHORT),
    "ppo with frames": ("ppo", ("GlimpseMNIST-v0", {**MNIST[1], "frame_stack": 3}), SHORT),
    "a2c": ("a2c", CATCH, {"n_steps": 3, **NET}),
    "dqn": ("dqn", CATCH, {**EXPLORING, "exploration_fraction": 1.0, "target_update_interval": 20}),
    "dqn with frames": ("dqn", ("GlimpseCatch-v0", {**CATCH[1], "frame_stack": 2}), EXPLORING),
    "sac": ("sac", CATCH, OFF_POLICY),
    "td3": ("td3", ("GlimpseCatch-v0", {**CATCH[1], "frame_stack": 2}), {**OFF_POLICY, "action_noise": NOISE}),
}
TOTAL, EVERY, STOP = 96, 24, 60  # Steps; stopped after two checkpoints, in mid-rollout where there are rollouts.


class LeaveBehind(BaseCallback):
    """Copies the run's folder as a kill would leave it."""

    def __init__(self, folder, copy):
        super().__init__()
        self.folder, self.copy = folder, copy

    def _on_step(self):
        if self.model.num_timesteps >= STOP and not self.copy.exists():
            shutil.copytree(self.folder, self.copy)
        return True


def make_env(case, split="train"):
    algo, (env_id, env_kwargs), _ = CASES[case]
    if "MNIST" in env_id and split != "train":
        env_kwargs = {**env_kwargs, "split": split, "image_order": "sequential"}
    return make_vec_env(env_id, N, **get_algorithm(algo).env_kwargs(env_id, env_kwargs))


def make_evaluation(case, folder):
    folder.mkdir(exist_ok=True)
    options = {"eval_seed": 5, "n_eval_episodes": 4, "log_path": str(folder), "verbose": 0, "best_model_save_path": str(folder)}
    return TimedEvalCallback(Stopwatch(), make_env(case, "validation"), eval_steps=EVERY, **options)


def learn(model, evaluation, folder, *others):
    callbacks = [evaluation, ResumeCallback(folder, evaluation), *others]
    return model.learn(TOTAL - model.num_timesteps, callbacks, reset_num_timesteps=model.num_timesteps == 0)


def make_model(case, device="cpu", seed=3):
    algorithm = get_algorithm(CASES[case][0])
    return algorithm.make(make_env(case), {**algorithm.hyperparams, **CASES[case][2]}, seed=seed, device=device)


def resume(case, folder, device="cpu"):
    model, evaluation = make_model(case, device, seed=4), make_evaluation(case, folder)
    torch.manual_seed(99), np.random.seed(99)  # noqa: NPY002 (what happens in between must not matter)
    evaluation.set_state(restore(read_checkpoint(folder), model, model.env))
    return model, evaluation


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_an_unbroken_one(case, tmp_path):
    if case == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    one, two = tmp_path / "one", tmp_path / "two"
    unbroken = learn(make_model(case), make_evaluation(case, one), one, LeaveBehind(one, two))
    model, evaluation = resume(case, two)
    assert EVERY <= model.num_timesteps < STOP
    resumed = learn(model, evaluation, two)
    assert resumed.num_timesteps == unbroken.num_timesteps
    assert_same(*(model.get_parameters() for model in (unbroken, resumed)), "parameters")
    for model in (unbroken, resumed):
        load_weights(model, (one if model is unbroken else two) / "best_model.zip")
    assert_same(unbroken.get_parameters(), resumed.get_parameters(), "best")
    if case == "sac":
        assert torch.equal(unbroken.log_ent_coef, resumed.log_ent_coef)
    with np.load(one / "evaluations.npz") as first, np.load(two / "evaluations.npz") as second:
        for name in ("timesteps", "results", "ep_lengths", "successes"):
            assert first[name].dtype == second[name].dtype
            np.testing.assert_array_equal(first[name], second[name])
        assert (np.diff(second["train_seconds"]) > 0).all()


@pytest.mark.parametrize("case", ["ram of several epochs", "dqn"])
def test_a_signal_leaves_a_checkpoint_of_the_next_rollout(case, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"

    class Signal(BaseCallback):
        def _on_step(self):
            if self.model.num_timesteps == STOP:
                self.locals["callback"].callbacks[1].signum = signal.SIGTERM
            return True

    unbroken, model = learn(make_model(case), make_evaluation(case, one), one), make_model(case)
    with pytest.raises(Stopped, match="signal 15") as stopped:
        learn(model, make_evaluation(case, two), two, Signal())
    assert stopped.value.signum == signal.SIGTERM
    stopped_at = model.num_timesteps
    model, evaluation = resume(case, two)
    assert STOP <= model.num_timesteps == stopped_at < STOP + 16
    assert_same(learn(model, evaluation, two).get_parameters(), unbroken.get_parameters(), "parameters")


def test_a_signal_in_the_last_rollout_keeps_the_finished_training(tmp_path):
    model, evaluation = make_model("a2c"), make_evaluation("a2c", tmp_path)
    keeper = ResumeCallback(tmp_path, evaluation)

    class Signal(BaseCallback):
        def _on_rollout_end(self):
            if self.model.num_timesteps >= TOTAL:
                keeper.signum = signal.SIGINT

        def _on_step(self):
            return True

    with pytest.raises(Stopped):
        model.learn(TOTAL, [evaluation, keeper, Signal()])
    resumed, evaluation = resume("a2c", tmp_path)
    assert resumed.num_timesteps == TOTAL == evaluation.evaluations_timesteps[-1]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with two checkpoints, after 24 and 48 steps."""
    folder, copy = (tmp_path_factory.mktemp("stopped") / name for name in ("run", "copy"))
    learn(make_model("a2c"), make_evaluation("a2c", folder), folder, LeaveBehind(folder, copy))
    return copy


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def steps_in(folder):
    return read_checkpoint(folder)["attributes"]["num_timesteps"]


def test_the_checkpoint_before_is_kept(folder):
    assert steps_in(folder) == 48
    (folder / CHECKPOINT).unlink()  # As a kill between the two renames would leave it.
    assert steps_in(folder) == 24


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:-1], lambda data: b"", lambda data: b"no"]
)
def test_a_cut_checkpoint_is_noticed(folder, damage):
    path = folder / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"checkpoint.npz is damaged: .*: resuming from the one before, checkpoint_previous.npz"):
        assert steps_in(folder) == 24
    path.with_name(PREVIOUS).write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"checkpoint.npz is damaged.* and .*checkpoint_previous.npz is damaged.* can't be resumed"
    ):
        read_checkpoint(folder)


def test_each_flipped_bit_is_noticed(folder):
    path, rng = folder / CHECKPOINT, np.random.default_rng(0)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for at in rng.integers(len(whole), size=40):
        flipped = whole.copy()
        flipped[at] ^= 1 << rng.integers(8)
        path.write_bytes(flipped.tobytes())
        with pytest.warns(UserWarning, match="is damaged"):
            assert steps_in(folder) == 24


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_nothing_that_is_read_runs_code(folder, tmp_path):
    path, trap = folder / CHECKPOINT, Evil(tmp_path / "owned")
    model = make_model("a2c")
    model.save(folder / "model.zip")
    for content in (
        pickle.dumps(trap),
        zipped({"tree.npy": npy(np.array(trap, object))}),
        zipped({"tree.npy": pickle.dumps(trap)}),
    ):
        path.write_bytes(content + hashlib.sha256(content).digest())
        (folder / PREVIOUS).unlink(missing_ok=True)
        with pytest.raises(ValueError, match="can't be resumed"):
            read_checkpoint(folder)
    with zipfile.ZipFile(folder / "model.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (folder / "evil.zip").write_bytes(zipped({**parts, "data": json.dumps({"a": {":serialized:": evil_text(trap)}}).encode()}))
    load_weights(model, folder / "evil.zip")  # SB3's pickled part is not read.
    (folder / "evil.zip").write_bytes(zipped({**parts, "policy.pth": pickle.dumps(trap, 2)}))
    with pytest.raises(ValueError, match=r"evil.zip holds no weights of this A2C with these hyperparameters"):
        load_weights(model, folder / "evil.zip")
    assert not trap.path.exists()


def zipped(parts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def evil_text(trap):
    return base64.b64encode(pickle.dumps(trap)).decode()


def test_weights_of_another_network_and_damaged_ones_are_named(tmp_path):
    model, path = make_model("a2c"), tmp_path / "model.zip"
    model.save(path)
    with pytest.raises(ValueError, match=r"model.zip holds no weights of this PPO with these hyperparameters: Error.* loading"):
        load_weights(make_model("ppo with frames"), path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"model.zip holds no weights of this A2C"):
        load_weights(model, path)


def test_a_best_model_that_is_newer_than_the_checkpoint_stays(folder):
    evaluation, state = make_evaluation("a2c", folder), read_checkpoint(folder)["progress"]
    evaluation.set_state(state)
    assert evaluation.best_mean_reward == state["best_mean_reward"]
    make_model("a2c", seed=8).save(folder / "best_model.zip")  # Of an evaluation that the checkpoint does not know of.
    with np.load(folder / "evaluations.npz") as saved:
        arrays = {**saved, "results": np.array([[0.0, 1.0], [1.0, 3.0]])}
    np.savez(folder / "evaluations.npz", **arrays)
    evaluation.set_state(state)
    assert evaluation.best_mean_reward == 2.0
    (folder / "best_model.zip").write_bytes((folder / "best_model.zip").read_bytes()[:2000])
    with pytest.warns(UserWarning, match=r"best_model.zip is damaged: the best model is that of the evaluations from now on"):
        evaluation.set_state(state)
    assert evaluation.best_mean_reward == -np.inf


def test_a_disk_without_room_is_told_before_training(tmp_path, monkeypatch):
    asked = []

    def full(handle, start, size):
        asked.append(size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"must take \d+\.\d MB of checkpoints and models: No space left on device"):
        learn(make_model("dqn"), make_evaluation("dqn", tmp_path), tmp_path)
    assert not list(tmp_path.iterdir())
    # The buffer's 7 (30 // 4) rows of 4 environments, of two observations each (12x12 glimpse, location), three times, at least.
    assert asked[0] > 3 * 7 * 4 * 2 * 4 * 36


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "one ü")
    assert path.read_text("utf-8") == "one ü"
    with pytest.raises(TypeError), written(path) as file:
        file.write(b"two" + "three")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == ["one ü".encode()]
    with pytest.raises(OSError, match=r"file can't be written: No space left on device$"), written(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    (folder := tmp_path / "folder").mkdir()
    with pytest.raises(ZeroDivisionError), written(folder / "file"):  # What happened is told, not what came of it.
        shutil.rmtree(folder) or 1 / 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", ["ram", "ram with all levers", "episode_a2c"])
@pytest.mark.parametrize(("before", "after"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_run_resumes_on_another_device(case, before, after, tmp_path):
    learn(
        make_model(case, before),
        make_evaluation(case, tmp_path / "one"),
        tmp_path / "one",
        LeaveBehind(tmp_path / "one", tmp_path / "two"),
    )
    model, evaluation = resume(case, tmp_path / "two", after)
    assert learn(model, evaluation, tmp_path / "two").num_timesteps >= TOTAL


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


def learn_counted(folder, steps=30, *others):
    env, evaluation = make_counted(folder)
    model = EpisodePPO("RecurrentPolicy", env, n_steps=3, seed=0, device="cpu")
    return model.learn(steps, [evaluation, ResumeCallback(folder, evaluation), *others]), evaluation


@pytest.mark.parametrize("native", [False, True])
def test_environments_that_can_not_tell_their_state_begin_anew(tmp_path, native, monkeypatch):
    if native:  # Each tells its own: not that of the batch.
        monkeypatch.setattr(Counted, "get_state", lambda self: self.time, raising=False)
    learn_counted(tmp_path)
    env, evaluation = make_counted(tmp_path)
    resumed = EpisodePPO("RecurrentPolicy", env, n_steps=3, seed=0, device="cpu")
    evaluation.set_state(restore(read_checkpoint(tmp_path), resumed, env))
    assert resumed.num_timesteps == 18
    assert evaluation.evaluations_timesteps == [16]
    seen, forward = [], resumed.policy.forward
    resumed.policy.forward = lambda obs, state: (
        seen.append((obs.flatten().tolist(), state[-1].flatten().tolist())) or forward(obs, state)
    )
    resumed.learn(12, [evaluation, ResumeCallback(tmp_path, evaluation)], reset_num_timesteps=False)
    assert resumed.num_timesteps == 30
    assert seen[0] == ([0, 0], [0, 0])  # The first steps of new episodes.
    assert evaluation.evaluations_timesteps == [16, 30]


def test_a_checkpoint_is_written_after_each_evaluation(tmp_path):
    path, written = tmp_path / CHECKPOINT, []

    class Note(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            if path.exists():
                written.append(self.model.num_timesteps)
                path.unlink()

    _, evaluation = learn_counted(tmp_path, 60, Note())
    assert evaluation.evaluations_timesteps == [16, 32, 48, 60]
    assert written == [18, 36, 48]  # When the next rollout begins; not when there is none.


def test_what_can_not_be_stored_is_named_before_training(tmp_path):
    model, evaluation = make_model("a2c"), make_evaluation("a2c", tmp_path)
    task = model.env.get_attr("task")[0]
    task.get_state = lambda: {"secret": object()}
    with pytest.raises(
        TypeError, match=r"a checkpoint holds numbers, .* got <class 'object'> for \['env'\]\[0\]\['task'\]\['secret'\]"
    ):
        learn(model, evaluation, tmp_path)


def test_progress_comes_back_as_it_was(tmp_path):
    model = make_model("a2c")
    progress = {
        "plain": [None, True, 3, 2**70, -0.5, "ü", float("inf")],
        "nested": {"a": (1, [2, (3,)], {}), 4: {(5, 6): "tuple"}, None: [], "": ()},
        "numbers": [np.float32(0.1), np.int8(-3), np.bool_(True), np.uint64(2**64 - 1)],
        "arrays": [np.arange(6).reshape(2, 3), np.array(1.5), np.zeros((0, 2)), np.array(["one", "two"]), np.ones(3, bool)],
        "tensors": [torch.arange(6.0).reshape(2, 3).T, torch.tensor(True), torch.ones(2, dtype=torch.bfloat16), torch.zeros(0)],
        "deques": [deque([1, (2,)], maxlen=5), deque(maxlen=None)],
    }
    save_checkpoint(tmp_path, model, model.env, progress)
    assert checkpoints_in(tmp_path) == [tmp_path / CHECKPOINT] and len(list(tmp_path.iterdir())) == 1
    back = restore(read_checkpoint(tmp_path), model, model.env)
    assert back.keys() == progress.keys()
    assert [back[name] for name in ("plain", "nested", "deques")] == [progress[name] for name in ("plain", "nested", "deques")]
    assert [one.maxlen for one in back["deques"]] == [5, None] and type(back["nested"]["a"]) is tuple
    for name in ("numbers", "arrays", "tensors"):
        for one, other in zip(back[name], progress[name], strict=True):
            assert type(one) is type(other) and (one.dtype, one.shape) == (other.dtype, other.shape)
            assert (one == other).all()
    for bad in (object(), np.array([None]), np.str_("a"), {1}):
        with pytest.raises(TypeError, match=r"got <class '.*'> for \['progress'\]\['x'\]\[1\]"):
            save_checkpoint(tmp_path, model, model.env, {"x": (0, bad)})
    assert checkpoints_in(tmp_path) == [tmp_path / CHECKPOINT] and len(list(tmp_path.iterdir())) == 1
    for _ in range(2):
        save_checkpoint(tmp_path, model, model.env, {})
    assert checkpoints_in(tmp_path) == [tmp_path / CHECKPOINT, tmp_path / PREVIOUS]


def test_every_source_of_random_numbers_is_set_back(tmp_path):
    model = make_model("a2c")
    save_checkpoint(tmp_path, model, model.env, {})

    def draw():
        numbers = [random.random(), float(np.random.rand()), float(torch.rand(1))]  # noqa: NPY002 (SB3 draws from it)
        return [*numbers, *(model.action_space.sample().tolist() for _ in range(3))]

    first = draw()
    restore(read_checkpoint(tmp_path), model, model.env)
    assert draw() == first


def test_a_checkpoint_of_another_version_is_named(tmp_path, monkeypatch):
    model = make_model("a2c")
    with monkeypatch.context() as other:
        other.setattr(checkpoints, "FORMAT", 99)
        save_checkpoint(tmp_path, model, model.env, {})
    with pytest.raises(ValueError, match="must have the format 1 for this version of ram-envs, got 99: the run can't be resumed"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_that_is_passed_over_is_told_where_it_is_read(folder):
    (folder / CHECKPOINT).write_bytes(hashlib.sha256(b"").digest())  # A digest alone.
    with pytest.warns(UserWarning, match="is damaged") as told:
        read_checkpoint(folder)
    assert told[0].filename == __file__


def test_files_are_on_the_disk_before_they_are_renamed(tmp_path, monkeypatch):
    events, sizes, handles, sync, replace, close = [], [], [], os.fsync, os.replace, os.close
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), sizes.append(os.fstat(handle).st_size), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda one, other: (events.append(os.path.basename(other)), replace(one, other)))
    monkeypatch.setattr(os, "close", lambda handle: (handles.append(handle), close(handle)))
    write_text(tmp_path / "a", "text")
    assert events == ["sync", "a", "sync"] and sizes[0] == 4 and len(handles) == 1
    model, events[:] = make_model("a2c"), []
    for _ in range(2):
        save_checkpoint(tmp_path, model, model.env, {})
    new = ["sync", "checkpoint_new.npz", "sync"]
    assert events == [*new, CHECKPOINT, "sync", *new, PREVIOUS, CHECKPOINT, "sync"]


def test_room_for_all_that_a_run_writes_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fallocate", lambda handle, start, size: asked.append((start, size)), raising=False)
    model, progress = make_model("a2c"), {"figures": np.zeros(1000)}
    weights = sum(part.nbytes for part in model.policy.parameters())
    check_space(tmp_path, model, model.env, progress)
    for _ in range(2):
        save_checkpoint(tmp_path, model, model.env, progress)
        check_space(tmp_path, model, model.env, progress)
    model.num_timesteps = 1
    check_space(tmp_path, model, model.env, progress)
    (tmp_path / "best_model.zip").touch()
    check_space(tmp_path, model, model.env, progress)
    assert {start for start, _ in asked} == {0}
    sizes = [size for _, size in asked]
    one = sizes[4]  # One more checkpoint of a model that has learned: its optimizer is whole.
    assert sizes[3] - sizes[4] == 3 * weights and sizes[2] - sizes[3] == 2 * weights
    assert sizes[0] - sizes[1] == sizes[1] - sizes[2] == one + 2 * weights
    written_size = (tmp_path / CHECKPOINT).stat().st_size
    assert 0.5 * written_size < one < written_size  # But for the archive's names.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best_model.zip", CHECKPOINT, PREVIOUS]
    monkeypatch.delattr(os, "posix_fallocate")
    check_space(tmp_path, model, model.env, progress)
    with pytest.raises(OSError, match=r"nowhere must take \d\.\d MB of checkpoints and models: No such file"):
        check_space(tmp_path / "nowhere", model, model.env, progress)


def test_room_for_the_whole_buffer_is_asked_for(tmp_path, monkeypatch):
    asked, full = [], []
    monkeypatch.setattr(os, "posix_fallocate", lambda handle, start, size: asked.append(size), raising=False)
    for size in (400, 800):
        algorithm = get_algorithm("dqn")
        model = algorithm.make(make_env("dqn"), {**algorithm.hyperparams, **EXPLORING, "buffer_size": size}, seed=0, device="cpu")
        check_space(tmp_path, model, model.env, {})
        parts = [vars(model.replay_buffer)[name] for name in ("actions", "rewards", "dones", "timeouts")]
        parts += [*model.replay_buffer.observations.values(), *model.replay_buffer.next_observations.values()]
        full.append(sum(part.nbytes for part in parts))
    assert full[1] == 2 * full[0]
    assert asked[1] - asked[0] == pytest.approx(3 * full[0], abs=100)  # But for digits.


def test_only_the_rows_that_a_buffer_holds_are_stored(tmp_path):
    model = make_model("dqn")
    for rows in (4, 7):
        model.learn(8, reset_num_timesteps=False)  # At least four steps of four environments.
        save_checkpoint(tmp_path, model, model.env, {})
        buffer = read_checkpoint(tmp_path)["buffer"]
        assert {len(part) for part in buffer.values() if isinstance(part, np.ndarray)} == {rows}
        assert {len(part) for part in buffer["observations"].values()} == {rows}
        assert (buffer["pos"], buffer["full"]) == ((4, False) if rows == 4 else (1, True))


def test_a_file_with_another_name(tmp_path, monkeypatch):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("new")
    link(one, other)
    assert other.samefile(one)
    for links in (True, False):
        other.unlink(missing_ok=True)
        other.write_text("old")
        if not links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
        link(one, other)
        assert other.read_text() == "new" and other.samefile(one) is links


def test_what_a_finished_run_does_not_need(tmp_path):
    for name in (CHECKPOINT, PREVIOUS, "checkpoint_new.npz", "result.json.partial", "model.zip", "evaluations.npz"):
        (tmp_path / name).touch()
    remove_checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluations.npz", "model.zip"]


def test_weights_of_a_file_without_other_variables(tmp_path):
    model, other = make_model("a2c"), make_model("a2c", seed=9)
    model.save(tmp_path / "whole.zip")
    with zipfile.ZipFile(tmp_path / "whole.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if name != "pytorch_variables.pth"}
    (tmp_path / "model.zip").write_bytes(zipped(parts))
    load_weights(other, tmp_path / "model.zip")
    assert_same(other.get_parameters(), model.get_parameters(), "parameters")


def test_other_variables_are_loaded_with_the_weights(tmp_path):
    model, other = make_model("sac"), make_model("sac", seed=9)
    model.log_ent_coef.data.fill_(-3.5)
    model.save(tmp_path / "model.zip")
    load_weights(other, tmp_path / "model.zip")
    assert other.log_ent_coef.tolist() == [-3.5]
    assert other.ent_coef_optimizer.param_groups[0]["params"][0] is other.log_ent_coef  # Still the one that is learned.


def pth(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("policy.pth", b"", "EOFError"),
        ("policy.pth", b"nothing", "Weights only load failed"),
        ("policy.pth", pth({}), "Error.* in loading state_dict"),
        ("policy.pth", pth([]), "Expected state_dict to be dict-like"),
        ("policy.optimizer.pth", pth({}), "'param_groups'"),
        ("pytorch_variables.pth", pth({"nothing": torch.ones(1)}), ".* no attribute 'nothing'"),
        ("other.pth", pth({}), "Key other is an invalid object name"),
    ],
)
def test_each_bad_part_of_a_saved_model_is_told(name, content, why, tmp_path):
    model, path = make_model("a2c"), tmp_path / "model.zip"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    path.write_bytes(zipped({**parts, name: content}))
    with pytest.raises(ValueError, match=rf"model.zip holds no weights of this A2C with these hyperparameters: {why}"):
        load_weights(model, path)


@pytest.mark.parametrize(
    "content",
    [
        *(zipped({"tree.npy": npy(np.frombuffer(tree, np.uint8))}) for tree in (b"[]", b"{", b'{"tensor": 5}', b'{"deque": []}')),
        zipped({"tree.npy": npy(np.frombuffer(b'{"tensor": ["tree", "uint8", [1]]}', np.uint8))}),
        zipped({"tree.npy": npy(np.frombuffer(b'{"scalar": ["i1", 300]}', np.uint8))}),
        zipped({"tree.npy": npy(np.frombuffer(b'{"deque": [1%s, 2]}' % (b"0" * 30), np.uint8))}),
        zipped({"tree.npy": b"no array"}),
        zipped({"other.npy": npy(np.zeros(1))}),
        zipped({"tree.npy": npy(np.zeros(1))})[:-30],
        b"t",
    ],
)
def test_what_is_whole_but_no_checkpoint_is_told(content, tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(ValueError, match=r"checkpoint.npz is no checkpoint: .*: the run can't be resumed, remove"):
        read_checkpoint(tmp_path)


def test_which_attributes_come_back(tmp_path):
    """Numbers and arrays that an algorithm counts; neither its parts, nor what is set where a run resumes."""
    model, other = make_model("a2c"), make_model("a2c", seed=4)
    model.learn(8), model.set_logger(Logger(None, []))
    back = {
        **{"a_list": [1, (2, {"a": 3.5})], "an_array": np.arange(3.0), "a_scalar": np.float32(0.5), "a_tensor": torch.ones(2)},
        **{"empty": [], "nothing": None, "a_queue": deque([1], maxlen=2)},
    }
    stays = {
        **{"texts": np.array(["a"]), "objects": np.array([None]), "views": [torch.ones(2)], "mixed": [1, object()]},
        **{"a_struct": SimpleNamespace(a=1), "verbose": 2, "tensorboard_log": "old", "start_time": 5},
    }
    for name in (*back, *stays):
        setattr(other, name, "own")
    vars(model).update(back, **stays)
    save_checkpoint(tmp_path, model, model.env, {})
    restore(read_checkpoint(tmp_path), other, other.env)
    for name, value in back.items():
        assert type(getattr(other, name)) is type(value)
        assert np.asarray(getattr(other, name) == value).all()
    assert {name: getattr(other, name) for name in stays} == dict.fromkeys(stays, "own")
    assert other.num_timesteps == model.num_timesteps > 0 and other.ep_info_buffer == model.ep_info_buffer
    other.verbose, other.tensorboard_log = 0, None
    other.learn(4, reset_num_timesteps=False)  # With a logger of its own.


def test_random_states_of_gpus_are_set_back_where_there_are_as_many(tmp_path, monkeypatch):
    model, states, set_back = make_model("a2c"), [torch.arange(3), torch.arange(4)], []
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", set_back.append)
    save_checkpoint(tmp_path, model, model.env, {})
    assert read_checkpoint(tmp_path)["cuda"] == []  # Nothing of a model on the CPU.
    with monkeypatch.context() as on_gpu:
        on_gpu.setattr(model, "device", torch.device("cuda"))
        save_checkpoint(tmp_path, model, model.env, {})
    for count in (1, 2, 3):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        restore(read_checkpoint(tmp_path), model, model.env)
    assert [[part.tolist() for part in one] for one in set_back] == [[[0, 1, 2], [0, 1, 2, 3]]]


def test_batches_that_can_not_tell_their_state_begin_anew(tmp_path):
    """As Gymnasium's own, which has one loop for all."""
    env = VecMonitor(GymnasiumVecEnv(gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")))
    model = A2C("MlpPolicy", env, n_steps=4, device="cpu")
    model.learn(8)
    save_checkpoint(tmp_path, model, env, {})
    state = read_checkpoint(tmp_path)
    restore(state, model, env)
    assert state["env"] is None and model._last_obs is None
    assert model.learn(8, reset_num_timesteps=False).num_timesteps == 16


def test_a_single_environment_goes_on_where_it_was(tmp_path):
    env, other = (make_vec_env(CATCH[0], 1, seed=seed, **get_algorithm("a2c").env_kwargs(*CATCH)) for seed in (0, 1))
    model, second = (A2C("MultiInputPolicy", one, n_steps=3, device="cpu") for one in (env, other))
    model.learn(3)
    save_checkpoint(tmp_path, model, env, {})
    restore(read_checkpoint(tmp_path), second, other)
    for _ in range(2):
        (*seen, infos), (*others, other_infos) = (one.step(np.array([[0, 1, 2]])) for one in (env, other))
        np.testing.assert_equal(seen, others)
    assert seen[2].all() and infos[0]["episode"]["l"] == other_infos[0]["episode"]["l"] == 5  # 3 of them before the stop.


def test_frames_of_plain_observations_come_back(tmp_path):
    env, other = (make_vec_env("Catch-v0", 2, seed=seed, frame_stack=3, size=6) for seed in (0, 1))
    model, second = (A2C("MlpPolicy", one, n_steps=3, device="cpu") for one in (env, other))
    model.learn(6)
    save_checkpoint(tmp_path, model, env, {})
    restore(read_checkpoint(tmp_path), second, other)
    np.testing.assert_array_equal(second._last_obs, model._last_obs)
    np.testing.assert_equal(*(one.step(np.array([0, 2]))[:3] for one in (env, other)))
