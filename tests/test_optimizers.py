import copy

import pytest

torch = pytest.importorskip("torch")

from stable_baselines3.common.utils import update_learning_rate
from torch import nn

from agents.optimizers import MuonBeside

INPUTS = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([4.0, 2, 1, 1, 0.5, 0.5])


def make(gain=2.0, lr=0.01):
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    return layer, MuonBeside(torch.optim.Adam([layer.bias], lr=lr), [layer.weight], gain)


def step(layer, optimizer, scale=1.0):
    optimizer.zero_grad()
    (scale * layer(INPUTS).sin().sum()).backward()
    before = [part.detach().clone() for part in layer.parameters()]
    optimizer.step()
    return [(after - old).detach() for after, old in zip(layer.parameters(), before, strict=True)]


def test_matrices_move_in_all_directions_alike_and_the_rest_as_ever():
    layer, optimizer = make()
    moved, bias_moved = step(layer, optimizer)
    # All four singular values lie near 0.2 sqrt(6) gain lr; the gradient's own are far apart.
    lengths, own = torch.linalg.svdvals(moved) / (0.2 * 6**0.5 * 2.0 * 0.01), torch.linalg.svdvals(layer.weight.grad)
    assert (lengths > 0.5).all() and (lengths < 1.3).all() and own[0] > 3 * own[-1]
    assert torch.allclose(bias_moved.abs(), torch.full((4,), 0.01), rtol=1e-3)  # Adam's first step is the learning rate.


def test_steps_do_not_depend_on_the_gradients_scale():
    large, small = (step(*make(), scale=scale)[0] for scale in (1.0, 0.01))
    torch.testing.assert_close(large, small, rtol=0.05, atol=1e-4)


def test_a_learning_rate_set_from_without_holds_for_both():
    layer, optimizer = make(lr=0.01)
    update_learning_rate(optimizer, 0.0)
    assert all(not part.any() for part in step(layer, optimizer))


def test_goes_on_from_its_state():
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
