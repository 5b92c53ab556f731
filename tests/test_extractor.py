import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

import numpy as np
from conftest import make
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import VecFrameStack

from ram_envs.agents import GlimpseExtractor, make_vec_env
from ram_envs.agents.extractor import default_extractor

SMALL = {"features_dim": 16, "hidden_size": 8}


def observation_space(glimpse=(3, 4, 4), location=(2,), **others):
    return spaces.Dict({"glimpse": spaces.Box(0, 1, glimpse), "location": spaces.Box(-1, 1, location), **others})


def observe(space, num_envs=5):
    space.seed(0)
    samples = [space.sample() for _ in range(num_envs)]
    return {name: torch.as_tensor(np.stack([sample[name] for sample in samples])) for name in space.spaces}


def gradients(extractor, obs):
    """The parameters that the features train."""
    extractor(obs).sum().backward()
    return {name for name, part in extractor.named_parameters() if part.grad is not None and part.grad.abs().sum() > 0}


def test_a_forward_pass_by_hand():
    extractor = GlimpseExtractor(observation_space((1, 1, 1)), 2, 1, glimpse_mean=0.25, glimpse_std=0.5)
    network = extractor.network
    with torch.no_grad():
        network.what.weight[:] = torch.tensor([[2.0]])
        network.where.weight[:] = torch.tensor([[1.0, -1.0]])
        network.both.weight[:] = torch.tensor([[1.0, 3.0], [1.0, -3.0]])
        network.both.bias[:] = torch.tensor([0.5, 0.0])
    obs = {"glimpse": torch.tensor([0.5, 0.0]).reshape(2, 1, 1, 1), "location": torch.tensor([[0.5, -0.25], [0.5, -0.25]])}
    # h_g = 2 (0.5 - 0.25) / 0.5 = 1, then 2 (0 - 0.25) / 0.5 < 0; h_l = 0.75.
    torch.testing.assert_close(extractor(obs), torch.tensor([[1 + 2.25 + 0.5, 0], [2.25 + 0.5, 0]]))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4), (2, 3, 5, 5)], ids=str)
@pytest.mark.parametrize("zooms", [0, 3])
def test_every_kind_of_glimpse(shape, zooms):
    space = observation_space(shape, **({"zoom": spaces.Box(0, 1, (zooms,))} if zooms else {}))
    extractor = GlimpseExtractor(space, **SMALL)
    assert (extractor.features_dim, extractor.network.where.in_features) == (16, 2 + zooms)
    obs = observe(space)
    assert extractor(obs).shape == (5, 16)
    parts = {f"network.{part}.{kind}" for part in ("what", "where", "both") for kind in ("weight", "bias")}
    assert gradients(extractor, obs) == parts


def test_what_else_is_known_of_a_glimpse_matters():
    space = observation_space(zoom=spaces.Box(0, 1, (3,)))
    extractor, obs = GlimpseExtractor(space, **SMALL), observe(space)
    for name in obs:
        other = {**obs, name: obs[name].roll(1, dims=-1)}
        assert (extractor(other) != extractor(obs)).any(dim=1).all()


def test_every_environment(env_id):
    env = make(env_id)
    if env_id == "Catch-v0":
        with pytest.raises(ValueError, match=r'"glimpse" \(k, g, g\) and "location" \(2,\) is needed, got Box'):
            GlimpseExtractor(env.observation_space)
    else:
        assert GlimpseExtractor(env.observation_space)(observe(env.observation_space)).shape == (5, 256)
    env.close()


ALGORITHMS = {
    "PPO": ("multidiscrete", {"n_steps": 25, "batch_size": 50, "n_epochs": 2}),
    "A2C": ("box", {}),
    "DQN": ("discrete", {"buffer_size": 500, "learning_starts": 100}),
    "SAC": ("box", {"buffer_size": 500, "learning_starts": 180}),
    "TD3": ("box", {"buffer_size": 500, "learning_starts": 180}),
    "RecurrentPPO": ("box", {"n_steps": 25, "batch_size": 50, "n_epochs": 2}),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_with_it(name, tmp_path):
    action_format, hyperparams = ALGORITHMS[name]
    package = "sb3_contrib" if name == "RecurrentPPO" else "stable_baselines3"
    algorithm = getattr(pytest.importorskip(package), name)
    env = make_vec_env("GlimpseCatch-v0", 4, seed=0, action_format=action_format)
    kwargs = {
        "features_extractor_class": GlimpseExtractor,
        "features_extractor_kwargs": {**SMALL, "glimpse_std": [0.3, 0.1, 0.03]},
    }
    policy = "MultiInputLstmPolicy" if name == "RecurrentPPO" else "MultiInputPolicy"
    model = algorithm(policy, env, seed=0, device="cpu", policy_kwargs=kwargs, **hyperparams)
    before = [part.clone() for part in model.policy.parameters()]
    extractors = [part for part in model.policy.modules() if isinstance(part, GlimpseExtractor)]
    model.learn(200)
    assert extractors
    assert any((part != old).any() for part, old in zip(model.policy.parameters(), before, strict=True))
    obs = env.reset()
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=env, device="cpu")
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_frames_can_be_stacked():
    env = VecFrameStack(make_vec_env("GlimpseCatch-v0", 4, seed=0, action_format="multidiscrete"), 3)
    kwargs = {
        "features_extractor_class": GlimpseExtractor,
        "features_extractor_kwargs": {**SMALL, "glimpse_std": [0.3, 0.1, 0.03]},
    }
    model = PPO("MultiInputPolicy", env, n_steps=25, batch_size=50, n_epochs=2, seed=0, device="cpu", policy_kwargs=kwargs)
    model.learn(100)
    network = model.policy.features_extractor.network
    assert (network.what.in_features, network.where.in_features) == (3 * 3 * 6 * 6, 3 * 2)
    obs = {name: torch.as_tensor(part) for name, part in env.reset().items()}
    assert model.policy.extract_features(obs).shape == (4, 16)


def test_the_extractor_that_fits():
    assert default_extractor(observation_space()) is GlimpseExtractor
    assert default_extractor(spaces.Box(0, 1, (3,))) is FlattenExtractor
    assert default_extractor(spaces.Dict({"position": spaces.Box(0, 1, (3,))})) is CombinedExtractor


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (spaces.Dict({"glimpse": spaces.Box(0, 1, (1, 8, 8))}), {}, '"glimpse" .* and "location"'),
        (observation_space(time=spaces.Box(0, 1, (1,))), {}, r"got \['time'\] too"),
        (observation_space(), {"glimpse_std": 0}, "glimpse_std must be above 0, got 0"),
        (observation_space(), {"glimpse_std": [1, 2]}, "glimpse_std must be a number or one for each of the 3 scales"),
        (observation_space(), {"glimpse_mean": [1, 2]}, "glimpse_mean must be a number or one for each of the 3 scales"),
        (observation_space(), {"glimpse_network": "vit"}, "glimpse_network must be one of"),
    ],
)
def test_bad_arguments_are_named(space, kwargs, message):
    with pytest.raises(ValueError, match=message):
        GlimpseExtractor(space, **kwargs)
