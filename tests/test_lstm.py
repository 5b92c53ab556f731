import pytest

torch = pytest.importorskip("torch")

from agents.lstm import lstm_sequence

T, N, F, H = 5, 3, 4, 6


@pytest.fixture
def cell():
    torch.manual_seed(0)
    return torch.nn.LSTMCell(F, H, dtype=torch.float64)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_it_is_the_cell_step_by_step(cell):
    inputs, hidden, memory = draw(T, N, F), draw(N, H), draw(N, H)
    hiddens, last = lstm_sequence(inputs, (hidden, memory), cell)
    expected, state = [], (hidden, memory)
    for step in inputs:
        state = cell(step, state)
        expected.append(state[0])
    torch.testing.assert_close(hiddens, torch.stack(expected))
    torch.testing.assert_close(last, state[1])
    # Gradients of a loss over all that comes out, for all that goes in.
    loss = (hiddens.cos().sum() + last.square().sum(), torch.stack(expected).cos().sum() + state[1].square().sum())
    leaves = (inputs, hidden, memory, *cell.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(one, leaves) for one in loss), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_are_those_of_finite_differences(cell):
    assert torch.autograd.gradcheck(lambda x, h, c: lstm_sequence(x, (h, c), cell), (draw(T, 2, F), draw(2, H), draw(2, H)))


def test_sequences_join(cell):
    inputs, zeros = draw(T, N, F), torch.zeros(N, H, dtype=torch.float64)
    whole, last = lstm_sequence(inputs, (zeros, zeros), cell)
    first, memory = lstm_sequence(inputs[:2], (zeros, zeros), cell)
    second, end = lstm_sequence(inputs[2:], (first[-1], memory), cell)
    torch.testing.assert_close(whole, torch.cat([first, second]))
    torch.testing.assert_close(last, end)
