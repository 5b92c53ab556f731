import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from agents.glimpse_networks import ConvGlimpseNetwork


def test_sizes_and_values():
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
def test_any_glimpse_will_do(shape):
    network = ConvGlimpseNetwork(shape, where_size=5, hidden_size=16, output_size=24)
    assert network(torch.rand(7, *shape), torch.rand(7, 5)).shape == (7, 24)


def test_too_small_a_glimpse():
    with pytest.raises(ValueError, match="need glimpses of at least 2x2, got 1x1"):
        ConvGlimpseNetwork((3, 1, 1))
