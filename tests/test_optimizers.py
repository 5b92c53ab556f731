import copy

import pytest

torch = pytest.importorskip("torch")

from stable_baselines3.common.utils import update_learning_rate
from torch import nn

from ram_envs.agents.optimizers import MuonBeside, start_average

INPUTS = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([4.0, 2, 1, 1, 0.5, 0.5])


def make(scale=2.0, lr=0.01):
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    return layer, MuonBeside(torch.optim.Adam([layer.bias], lr=lr), [layer.weight], scale)


def step(layer, optimizer, factor=1.0):
    optimizer.zero_grad()
    (factor * layer(INPUTS).sin().sum()).backward()
    before = [part.detach().clone() for part in layer.parameters()]
    optimizer.step()
    return [(after - old).detach() for after, old in zip(layer.parameters(), before, strict=True)]


def test_matrices_move_in_all_directions_alike_and_the_rest_as_ever():
    layer, optimizer = make()
    moved, bias_moved = step(layer, optimizer)
    # All four singular values lie near 0.2 sqrt(6) scale lr; the gradient's own are far apart.
    lengths, own = torch.linalg.svdvals(moved) / (0.2 * 6**0.5 * 2.0 * 0.01), torch.linalg.svdvals(layer.weight.grad)
    assert (lengths > 0.5).all() and (lengths < 1.3).all() and own[0] > 3 * own[-1]
    assert torch.allclose(bias_moved.abs(), torch.full((4,), 0.01), rtol=1e-3)  # Adam's first step is the learning rate.


def test_steps_do_not_depend_on_the_gradients_scale():
    large, small = (step(*make(), factor=factor)[0] for factor in (1.0, 0.01))
    torch.testing.assert_close(large, small, rtol=0.05, atol=1e-4)


def test_a_learning_rate_set_from_without_holds_for_both():
    layer, optimizer = make(lr=0.01)
    update_learning_rate(optimizer, 0.0)
    assert all(not part.any() for part in step(layer, optimizer))


def test_continues_from_its_state():
    layer, optimizer = make()
    step(layer, optimizer)
    other, restored = make()
    other.load_state_dict(layer.state_dict())
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch would share the tensors.
    update_learning_rate(optimizer, 0.003)
    update_learning_rate(restored, 0.003)
    for one, two in zip(step(layer, optimizer), step(other, restored), strict=True):
        assert torch.equal(one, two)


def test_a_closure_makes_the_gradients_of_both():
    (layer, optimizer), (other, plain) = make(), make()

    def closure():
        optimizer.zero_grad()
        loss = layer(INPUTS).sin().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    step(other, plain)
    assert loss == make()[0](INPUTS).sin().sum()
    for one, two in zip(layer.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_zero_grad_forgets_all():
    layer, optimizer = make()
    step(layer, optimizer)
    optimizer.zero_grad()
    assert layer.weight.grad is None and layer.bias.grad is None


def test_only_matrices():
    layer = nn.Linear(6, 4)
    with pytest.raises(ValueError, match="2D"):
        MuonBeside(torch.optim.Adam([layer.weight]), [layer.bias])


def average_of(values, share):
    """What one weight's average is after it had these values."""
    network = nn.Linear(1, 1, bias=False)
    average = start_average(network, share)
    for value in values:
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    return average.module.weight.item()


def test_the_average_of_all_is_the_plain_mean():
    assert average_of([1.0, 2.0, 6.0], share=1) == pytest.approx(3.0)


def test_newer_weights_count_for_more():
    # e = 2: the shares of the second and the third are 2/3 and 2/4.
    assert average_of([1.0, 4.0, 8.0], share=0.5) == pytest.approx(((1 + 2 * 4) / 3 + 8) / 2)


def test_the_window_grows_with_the_updates():
    for number in (1_000, 4_000):  # The mean age of what counts is a tenth of all, and a little less since the window grew.
        assert average_of(range(number), share=0.1) == pytest.approx(number * (1 - 0.1 / 1.1), rel=0.01)


def test_nothing_of_the_average_is_learned():
    assert not any(part.requires_grad for part in start_average(nn.Linear(2, 2), 0.5).parameters())


@pytest.mark.parametrize("shape", [(8, 12), (12, 8)])
def test_cpus_without_16_bit_products_take_torchs_steps_in_float32(shape, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(shape, generator=generator), torch.randn(3, *shape, generator=generator)
    ways = []
    for is_fast in (True, False):
        monkeypatch.setattr("ram_envs.agents.optimizers.HAS_FAST_BFLOAT16", is_fast)
        matrix = torch.nn.Parameter(start.clone())
        optimizer = MuonBeside(torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.1), [matrix])
        for gradient in gradients:
            matrix.grad = gradient
            optimizer.step()
        ways.append((matrix.detach() - start, optimizer.state_dict()["muon"]["state"][0]["momentum_buffer"]))
    torch.testing.assert_close(ways[1][0], ways[0][0], rtol=0, atol=0.01)  # Steps are about 0.02 long, in bfloat16 to 1 %.
    torch.testing.assert_close(ways[1][1], ways[0][1])
