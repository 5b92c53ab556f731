import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from gymnasium import spaces

from ram_envs.agents import get_algorithm, make_vec_env
from ram_envs.agents.glimpse_networks import OTHER_GLIMPSE_NETWORKS, ConvGlimpseNetwork, GlimpseInput, find_class

SCENE = (1, 60, 60)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 3, 4, 4), (2, 4, 12)], ids=str)
def test_each_scale_is_normalised_by_its_own(shape):
    space = spaces.Dict({"glimpse": spaces.Box(0, 1, shape), "location": spaces.Box(-1, 1, (2,))})
    obs = {"glimpse": torch.rand(5, *shape), "location": torch.rand(5, 2)}
    glimpse, where = GlimpseInput(space, [0, 0.5], [1, 0.25])(obs)
    torch.testing.assert_close(glimpse[:, 0], obs["glimpse"][:, 0])
    torch.testing.assert_close(glimpse[:, 1], (obs["glimpse"][:, 1] - 0.5) * 4)
    assert where is obs["location"]
    assert GlimpseInput(space)(obs)[0] is obs["glimpse"]


def test_the_zoom_is_part_of_where():
    parts = {"glimpse": spaces.Box(0, 1, (1, 2, 2)), "location": spaces.Box(-1, 1, (2,)), "zoom": spaces.Box(0, 1, (3,))}
    obs = {"glimpse": torch.rand(5, 4, 1, 2, 2), "location": torch.rand(5, 4, 2), "zoom": torch.rand(5, 4, 3)}
    seen = GlimpseInput(spaces.Dict(parts))
    assert (seen.glimpse_shape, seen.where_size) == ((1, 2, 2), 5)
    assert torch.equal(seen(obs)[1], torch.cat([obs["location"], obs["zoom"]], dim=-1))


def test_the_retinas_convolutions_by_hand():
    torch.manual_seed(0)
    network = ConvGlimpseNetwork((3, 12, 12), hidden_size=32, output_size=48)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "strokes.weight": (4, 1, 4, 4),
        "parts.weight": (8, 4, 3, 3),
        "what.weight": (32, 3 * 3 * 3 * 8),
        "where.weight": (32, 2),
        "both.weight": (48, 64),
    }
    glimpse, location = torch.rand(5, 3, 12, 12), torch.rand(5, 2)
    maps = []
    for scale in range(3):  # The same filters at each scale.
        strokes = F.conv2d(glimpse[:, scale : scale + 1], network.strokes.weight, network.strokes.bias, 2, 1).relu()
        maps.append(F.conv2d(strokes, network.parts.weight, network.parts.bias, 2, 1).relu().permute(0, 2, 3, 1).flatten(1))
    what = F.linear(torch.cat(maps, dim=1), network.what.weight, network.what.bias).relu()
    where = network.where(location).relu()
    expected = network.both(torch.cat([what, where], dim=1)).relu()
    torch.testing.assert_close(network(glimpse, location), expected)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 6), (2, 3, 9, 9), (1, 2, 2)])
def test_the_retinas_convolutions_take_any_glimpse(shape):
    network = ConvGlimpseNetwork(shape, where_size=5, hidden_size=16, output_size=24)
    assert network(torch.rand(7, *shape), torch.rand(7, 5)).shape == (7, 24)


def test_too_small_a_glimpse():
    with pytest.raises(ValueError, match="need glimpses of at least 2x2, got 1x1"):
        ConvGlimpseNetwork((3, 1, 1))


def make_model(name, env_id="GlimpseClassification-v0", num_envs=64, learning_rate=3e-3, **env_kwargs):
    algorithm = get_algorithm(name)
    env = make_vec_env(env_id, num_envs, **algorithm.env_kwargs(env_id, env_kwargs))
    return algorithm.make(env, {"learning_rate": learning_rate, **algorithm.hyperparams}, seed=0, device="cpu")


@pytest.mark.parametrize(("name", "width"), [("fc64", 64), ("fc256", 256)])
def test_the_papers_fully_connected_nets(name, width):
    policy = make_model(name, "GlimpseTranslatedMNIST-v0", num_envs=2, dataset="mnist-5k").policy
    assert count(policy.glimpse_network) == 3600 * width + width + width * width + width
    assert count(policy.class_head) == width * 10 + 10
    assert count(policy.core) == 0
    glimpse = torch.rand(2, *SCENE)
    first, second = policy.glimpse_network.first, policy.glimpse_network.second
    expected = (((glimpse.flatten(1) @ first.weight.T + first.bias).clamp(min=0)) @ second.weight.T + second.bias).clamp(min=0)
    torch.testing.assert_close(policy.glimpse_network(glimpse, torch.zeros(2, 2)), expected)


def test_the_papers_convolutional_net():
    policy = make_model("conv", "GlimpseTranslatedMNIST-v0", num_envs=2, dataset="mnist-5k").policy
    network = policy.glimpse_network
    assert tuple(network.filters.weight.shape) == (8, 1, 10, 10)
    assert count(network) == 8 * 100 + 8 + 8 * 11 * 11 * 256 + 256  # (60 - 10) / 5 + 1 = 11 places to a side.
    assert count(policy.class_head) == 256 * 10 + 10
    glimpse = torch.rand(2, *SCENE)
    # Each patch by hand: filter f at row r and column c of the grid sees the pixels from 5 r and 5 c on.
    patches = glimpse[:, 0].unfold(1, 10, 5).unfold(2, 10, 5)  # (N, 11, 11, 10, 10)
    features = torch.einsum("nrcij,fij->nfrc", patches, network.filters.weight[:, 0]) + network.filters.bias[:, None, None]
    expected = network.units(features.relu().flatten(1)).relu()
    torch.testing.assert_close(network(glimpse, torch.zeros(2, 2)), expected, rtol=1e-4, atol=1e-5)


def test_the_residual_net():
    network = OTHER_GLIMPSE_NETWORKS["cnn"](SCENE, 2, 16, 128)
    stages = [(1, 16), (16, 32), (32, 64)]
    # A convolution and two in the residual block, without biases, and a scale and a shift for each channel of each.
    expected = sum(9 * before * width + 2 * 9 * width * width + 3 * 2 * width for before, width in stages)
    assert count(network) == expected + 128 * 128 + 128
    assert network.stages(torch.rand(2, *SCENE)).shape == (2, 64, 8, 8)  # 60, 30, 15, 8.
    assert network(torch.rand(2, *SCENE), torch.zeros(2, 2)).shape == (2, 128)


@pytest.mark.parametrize("name", ["fc", "conv", "cnn"])
def test_where_it_was_taken_is_left_out_and_colours_are_seen(name):
    network = OTHER_GLIMPSE_NETWORKS[name]((2, 3, 12, 12), 5, 4, 8).eval()
    glimpse = torch.rand(3, 2, 3, 12, 12)
    seen = network(glimpse, torch.zeros(3, 5))
    assert seen.shape == (3, 8)
    assert (seen >= 0).all()
    assert torch.equal(seen, network(glimpse, torch.rand(3, 5)))
    for scale, colour in np.ndindex(2, 3):
        other = glimpse.clone()
        other[:, scale, colour] += 5
        assert not torch.equal(network(other, torch.zeros(3, 5)), seen)


def bars(num_images, rng):
    """Noise, and a bright bar in one of its four quarters."""
    labels = rng.integers(0, 4, num_images)
    images = rng.integers(0, 120, (num_images, 20, 20), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[10 * (label // 2) + 4, 10 * (label % 2) :][:10] = 255
    return images, labels


@pytest.mark.parametrize("name", ["fc64", "fc256", "conv", "cnn"])
def test_learns_from_whole_scenes(name):
    rng = np.random.default_rng(0)
    model = make_model(name, dataset=bars(1000, rng))
    model.learn(64 * 40)
    images, labels = bars(200, rng)
    obs = {"glimpse": images[:, None] / np.float32(255), "location": np.zeros((200, 2), np.float32)}
    actions, _ = model.predict(obs, deterministic=True)
    assert (actions[:, 2:].argmax(1) == labels).mean() > 0.8  # By chance 0.25.
    assert model.policy.glimpse_network.training is False


def test_scenes_that_the_filters_do_not_fit_in():
    with pytest.raises(ValueError, match="the filters are 10x10, got glimpses of 8x8"):
        OTHER_GLIMPSE_NETWORKS["conv"]((1, 8, 8), 2, 8, 256)
    assert OTHER_GLIMPSE_NETWORKS["conv"]((1, 10, 10), 2, 8, 4).units.weight.shape == (4, 8)  # One place only.


def test_classes_are_found_in_modules():
    assert find_class("core", "torch.nn:GRUCell", {}) is torch.nn.GRUCell
    with pytest.raises(ValueError, match=r'core must be one of \(\), "module:Class" or a class of torch modules, got .math:pi.'):
        find_class("core", "math:pi", {})
