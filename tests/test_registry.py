import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy

from ram_envs.agents import RAM, algorithm_names, get_algorithm, make_vec_env, register_algorithm
from ram_envs.agents.training import registry
from ram_envs.agents.training.generator import GeneratorAlgorithm

OPTIONS = {"GlimpseMNIST-v0": {"dataset": "mnist-5k", "location_grid": 2}, "GlimpseCatch-v0": {"size": 6}}
SMALL_NET = {"policy_kwargs": {"net_arch": [16]}}
OFF_POLICY = {"learning_starts": 8, "batch_size": 8, "buffer_size": 200, **SMALL_NET}
SMALL = {
    "ppo": {"n_steps": 4, "batch_size": 16, "n_epochs": 1, **SMALL_NET},
    "a2c": {"n_steps": 4, **SMALL_NET},
    "recurrent_ppo": {"n_steps": 4, "batch_size": 16, "n_epochs": 1, "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [16]}},
    "sac": OFF_POLICY,
    "td3": OFF_POLICY,
    "dqn": OFF_POLICY,
    "episode_ppo": {"n_epochs": 1, "n_minibatches": 2},
}
SEE_SCENES = {"fc64", "fc256", "conv", "cnn"}
GAMES = {"class_loss": "reinforce"}


def make_env(name, env_id="GlimpseMNIST-v0", num_envs=4, **env_kwargs):
    return make_vec_env(env_id, num_envs, **get_algorithm(name).env_kwargs(env_id, {**OPTIONS[env_id], **env_kwargs}))


def make_model(name, env, **hyperparams):
    algorithm = get_algorithm(name)
    hyperparams = {**algorithm.hyperparams, **SMALL.get(name, {}), **hyperparams}
    return algorithm.make(env, hyperparams, seed=0, device="cpu", tensorboard_log=None)


def weights(model):
    return [part.detach().clone() for part in model.policy.parameters()]


def test_names():
    assert algorithm_names()[:14] == (
        *("ram", "ram_random", "fc64", "fc256", "conv", "cnn"),
        *("episode_ppo", "episode_a2c", "recurrent_ppo", "ppo", "a2c", "dqn", "sac", "td3"),
    )
    assert all(get_algorithm(name).summary for name in algorithm_names()[:14])
    names = ", ".join(f"'{name}'" for name in algorithm_names())
    with pytest.raises(ValueError, match=rf"algo must be one of \({names}\), got 'a3c'"):
        get_algorithm("a3c")


@pytest.mark.parametrize("name", algorithm_names())
@pytest.mark.parametrize("env_id", OPTIONS)
def test_each_learns_in_each_environment_and_is_loaded(name, env_id, tmp_path):
    if name == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    if name in SEE_SCENES and "Catch" in env_id:
        with pytest.raises(ValueError, match=rf"{name} can't learn {env_id}: it needs an option num_glimpses"):
            make_env(name, env_id)
        return
    env = make_env(name, env_id)
    learns_by_reward = "Catch" in env_id and name.startswith("ram")
    model = make_model(name, env, **(GAMES if learns_by_reward else {}))
    before = weights(model)
    model.learn(48)
    assert any((old != new).any() for old, new in zip(before, model.policy.parameters(), strict=True))
    reward, _ = evaluate_policy(model, env, n_eval_episodes=8)
    assert 0 <= reward <= 1
    model.save(tmp_path / "model.zip")
    loaded = get_algorithm(name).load(tmp_path / "model.zip", env=env, device="cpu")
    obs = env.reset()
    if name != "ram_random":
        np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_random_glimpses():
    env = make_env("ram_random", num_envs=500)
    model = make_model("ram_random", env)
    locations = model.predict(env.reset(), deterministic=True)[0][:, :2]
    assert np.abs(locations.mean(axis=0)).max() < 0.1
    assert locations.std(axis=0).tolist() == pytest.approx([3**-0.5] * 2, abs=0.05)  # Uniform over [-1, 1].
    before = model.policy.location_head.weight.detach().clone()
    model.learn(1500)
    assert torch.equal(before, model.policy.location_head.weight)


@pytest.mark.parametrize(("name", "width"), [("fc64", 28), ("conv", 60)])
def test_whole_scenes_are_seen_at_one_glimpse(name, width):
    env_id = "GlimpseMNIST-v0" if width == 28 else "GlimpseClutteredMNIST-v0"
    options = get_algorithm(name).env_kwargs(env_id, {"dataset": "mnist-5k"})
    env = make_vec_env(env_id, 3, **options)
    obs = env.reset()
    assert obs["glimpse"].shape == (3, 1, width, width)
    scenes = [env.env_method("frame", i)[0].scene for i in range(3)]
    np.testing.assert_allclose(obs["glimpse"][:, 0], scenes, rtol=1e-6)
    assert env.step(np.zeros((3, 12), np.float32))[2].all()  # And the episode is over.
    assert "canvas_size" not in options
    with pytest.raises(ValueError, match=rf"{name} sees the whole scene at one glimpse: leave num_glimpses=4 out"):
        get_algorithm(name).env_kwargs(env_id, {"dataset": "mnist-5k", "num_glimpses": 4})


def test_formats_of_actions():
    formats = {name: get_algorithm(name).env_kwargs("GlimpseCatch-v0", {}) for name in ("ram", "ppo", "dqn", "sac")}
    assert formats == {
        "ram": {},
        "ppo": {"action_format": "multidiscrete"},
        "dqn": {"action_format": "discrete"},
        "sac": {"action_format": "box"},
    }
    assert get_algorithm("ppo").env_kwargs("GlimpseCatch-v0", {"action_format": "box"}) == {"action_format": "box"}
    assert get_algorithm("ppo").env_kwargs("GlimpseMNISTDiscrete-v0", {}) == {}  # The id has its own.
    assert get_algorithm("dqn").env_kwargs("Catch-v0", {"size": 6}) == {"size": 6}  # It has no formats.


@pytest.mark.parametrize(
    ("name", "action_format", "message"),
    [
        ("dqn", "box", "it takes Discrete actions, got .* --env-kwargs action_format:discrete"),
        ("sac", "discrete", "it takes Box actions, got .* --env-kwargs action_format:box"),
    ],
)
def test_a_format_that_it_can_not_take(name, action_format, message):
    env = make_env(name, "GlimpseCatch-v0", action_format=action_format)
    with pytest.raises(ValueError, match=f"{name} can't learn in this environment: {message}"):
        make_model(name, env)


def test_ram_names_the_format_too():
    with pytest.raises(ValueError, match='action_format="dict" or "box"'):
        make_model("ram", make_env("ram", "GlimpseCatch-v0", action_format="discrete"), **GAMES)


def test_why_an_algorithm_can_not_learn():
    catch, glimpses = gym.make("Catch-v0"), gym.make("GlimpseCatch-v0")
    for name in algorithm_names()[:14]:
        reason = get_algorithm(name).reason_against(glimpses.action_space, glimpses.unwrapped.has_labels)
        assert reason == ("it learns from the labels of whole images, and there are none" if name in SEE_SCENES else None)
        assert get_algorithm(name).reason_against(glimpses.action_space, True) is None
    assert get_algorithm("ppo").reason_against(catch.action_space, False) is None
    for name in ("sac", "td3"):
        assert get_algorithm(name).reason_against(catch.action_space, False).startswith("it takes Box actions, got Discrete(3)")
        with pytest.raises(ValueError, match=rf"{name} can't learn in this environment: it takes Box actions, got Discrete\(3\)"):
            make_model(name, make_vec_env("Catch-v0", 2))
    with pytest.raises(ValueError, match="fc64 can't learn in this environment: it learns from the labels of whole images"):
        make_model("fc64", make_vec_env("GlimpseCatch-v0", 2))


def test_options_are_completed_without_an_environment():
    """MNIST itself may take a download."""
    for name in ("ram", "ppo", "fc64"):
        assert get_algorithm(name).env_kwargs("GlimpseMNIST-v0", {"dataset": "no such"})["dataset"] == "no such"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    algorithm = get_algorithm("recurrent_ppo")
    message = r"'recurrent_ppo' needs the package sb3_contrib: pip install 'ram-envs\[contrib\]'"
    with pytest.raises(ImportError, match=message):
        algorithm.resolve()
    with pytest.raises(ImportError, match=message):
        make_model("recurrent_ppo", make_env("recurrent_ppo", "GlimpseCatch-v0"))


def test_hyperparameters_that_there_are_not_are_named_with_those_that_there_are():
    register_algorithm("narrow", lambda env, seed, width=3: None, "Nothing.")
    for name, unknown, known in (
        ("ppo", "normalize", "learning_rate, n_steps, batch_size, .*, policy_kwargs, verbose$"),  # rl_zoo3's.
        ("ppo", "seed", "learning_rate, .*"),
        ("narrow", "with", "width$"),
    ):
        with pytest.raises(ValueError, match=f"{unknown} is not a hyperparameter of {name}: {known}"):
            get_algorithm(name).make(make_env(name, "GlimpseCatch-v0"), {unknown: True}, seed=0)


@pytest.mark.parametrize("name", ["a2c", "sac"])
def test_hyperparameters_are_not_written_to(name):
    """SB3's models write into the policy_kwargs that they are given."""
    hyperparams = {**SMALL[name], "policy_kwargs": {"net_arch": [16]}}
    make_model(name, make_env(name, "GlimpseCatch-v0"), **hyperparams)
    assert hyperparams["policy_kwargs"] == {"net_arch": [16]}


def test_a_class_is_registered_by_name_or_as_it_is():
    register_algorithm("wide_ram", RAM, policy="RAMPolicy", hyperparams={"policy_kwargs": {"core_size": 300}})
    register_algorithm("late_ppo", "stable_baselines3:PPO", "SB3's.", action_format="discrete")
    assert get_algorithm("wide_ram").summary == RAM.__doc__.splitlines()[0]
    assert make_model("wide_ram", make_env("wide_ram")).policy.core_size == 300
    assert isinstance(make_model("late_ppo", make_env("late_ppo"), n_steps=4, batch_size=16), PPO)
    assert algorithm_names()[-2:] == ("wide_ram", "late_ppo")


def test_a_function_that_returns_a_model(tmp_path):
    @register_algorithm("shy_ppo", action_format="discrete", hyperparams={"n_steps": 4, "batch_size": 16})
    def shy_ppo(env, seed, **hyperparams):
        """PPO that hardly learns.

        And more.
        """
        return PPO("MultiInputPolicy", env, learning_rate=1e-6, seed=seed, **hyperparams)

    assert shy_ppo.__name__ == "shy_ppo"
    algorithm = get_algorithm("shy_ppo")
    assert algorithm.summary == "PPO that hardly learns."
    env = make_env("shy_ppo")
    assert env.action_space == gym.spaces.Discrete(2 * 2 * 10)
    model = make_model("shy_ppo", env).learn(16)
    assert (model.learning_rate, model.seed, model.n_steps) == (1e-6, 0, 4)
    model.save(tmp_path / "model.zip")
    loaded, obs = algorithm.load(tmp_path / "model.zip", env=env, device="cpu"), env.reset()
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    with pytest.raises(ValueError, match="loading a model of 'shy_ppo' takes an environment: pass env"):
        algorithm.load(tmp_path / "model.zip")


def test_a_training_loop(tmp_path):
    @register_algorithm("stubborn", action_format="multidiscrete")
    def stubborn(env, seed, move=2):
        """Always the same move."""
        env.reset()
        steps, actions = 0, np.tile([0, 0, move], (env.num_envs, 1))
        while True:
            env.step(actions)
            steps += env.num_envs
            yield (
                steps,
                lambda obs, state, episode_start, deterministic: (np.tile([0, 0, move], (len(obs["location"]), 1)), state),
            )

    env = make_env("stubborn", "GlimpseCatch-v0")
    model = make_model("stubborn", env, move=1).learn(40)
    assert isinstance(model, GeneratorAlgorithm)
    assert model.num_timesteps == 40
    model.save(tmp_path / "model.zip")
    loaded = get_algorithm("stubborn").load(tmp_path / "model.zip", env=env)
    assert loaded.predict(env.reset())[0].tolist() == [[0, 0, 1]] * 4


def test_bad_registrations_are_named():
    with pytest.raises(ValueError, match="name must be new, there is an algorithm 'ppo' already"):
        register_algorithm("ppo", PPO)
    with pytest.raises(
        ValueError, match=r"action_format must be one of \('box', 'discrete', 'multidiscrete'\) or None, got 'dict'"
    ):
        register_algorithm("mine", PPO, action_format="dict")
    with pytest.raises(ValueError, match="action_format must be"):
        register_algorithm("mine", action_format="boxes")  # As a decorator, before there is a function.
    assert "mine" not in algorithm_names()
    assert replace(get_algorithm("ppo"), name="mine").action_format == "multidiscrete"


def test_a_class_of_a_module_is_an_algorithm_that_nobody_registered(monkeypatch):
    monkeypatch.setattr(registry, "_ALGORITHMS", dict(registry._ALGORITHMS))
    algorithm = get_algorithm("stable_baselines3:A2C")
    model = algorithm.make(make_vec_env("CatchDiscrete-v0", 2), {"n_steps": 4}, seed=0, device="cpu")
    assert (type(model), model.n_steps) == (A2C, 4)
    with pytest.raises(ValueError, match="algo must be a class or a function of the module math, got 'math:nothing'"):
        get_algorithm("math:nothing")


@pytest.mark.parametrize("name", ["no_such_module:A", ":A", ".a:A"])
def test_algorithms_of_modules_that_are_not_there_are_named(name):
    with pytest.raises(ModuleNotFoundError, match=f"algo='{name}' can't be imported: "):
        get_algorithm(name)
