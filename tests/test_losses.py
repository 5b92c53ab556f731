import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ram_envs.agents.losses import (
    advantages_and_returns,
    baseline_loss,
    choice_entropy,
    choice_log_prob,
    classification_loss,
    clipped_loss,
    gains,
    hold_inside,
    location_log_prob,
    policy_loss,
    reinforce_loss,
)


def test_returns_by_hand():
    rewards = np.array([[0, 1], [2, 0], [4, 8]], float)
    values = np.array([[1, 0], [0, 3], [2, 5]], float)
    dones = np.array([[False, True], [False, False], [True, False]])
    # First: one episode of three steps. Second: one of a single step, then one that continues after the rollout.
    advantages, returns = advantages_and_returns(rewards, values, dones, np.array([100.0, 100.0]), gamma=0.5)
    np.testing.assert_allclose(returns, [[2, 1], [4, 29], [4, 58]])
    np.testing.assert_allclose(advantages, [[1, 1], [4, 26], [2, 53]])


def test_returns_of_a_final_reward_are_that_reward():
    rewards = np.zeros((4, 2))
    rewards[-1] = [1, 0]
    dones = np.zeros((4, 2), bool)
    dones[-1] = True
    _, returns = advantages_and_returns(rewards, np.full((4, 2), 0.25), dones, np.full(2, 9.0), 1.0)
    np.testing.assert_array_equal(returns, [[1, 0]] * 4)


def test_generalised_advantages_by_hand():
    rewards, values = np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [0.25], [1.0]])
    dones = np.array([[False], [True], [False]])
    advantages, returns = advantages_and_returns(rewards, values, dones, np.array([4.0]), gamma=0.5, gae_lambda=0.5)
    # Errors: 0 + 0.5 * 0.25 - 0.5 = -0.375; 1 - 0.25 = 0.75 (the end); 2 + 0.5 * 4 - 1 = 3.
    np.testing.assert_allclose(advantages, [[-0.375 + 0.25 * 0.75], [0.75], [3.0]])
    np.testing.assert_allclose(returns, advantages + values)
    one_step, _ = advantages_and_returns(rewards, values, dones, np.array([4.0]), gamma=0.5, gae_lambda=0.0)
    np.testing.assert_allclose(one_step, [[-0.375], [0.75], [3.0]])


def test_reinforce_by_hand():
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    advantages = torch.tensor([[1.0, 0.5], [-1.0, 2.0]], requires_grad=True)
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss = reinforce_loss(log_probs, advantages, weights)
    assert loss.item() == pytest.approx(-(-1.0 - 1.0 + 3.0) / 3)
    loss.backward()
    np.testing.assert_allclose(log_probs.grad, [[-1 / 3, -0.5 / 3], [1 / 3, 0]], rtol=1e-6)
    assert advantages.grad is None


def test_clipped_loss_by_hand():
    old = torch.log(torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    new = torch.log(torch.tensor([[0.9, 0.9, 0.1, 0.1]])).requires_grad_()  # Ratios 1.8 and 0.2.
    advantages, weights = torch.tensor([[1.0, -1.0, 1.0, -1.0]]), torch.ones(1, 4)
    loss = clipped_loss(new, old, advantages, weights, clip_range=0.2)
    assert loss.item() == pytest.approx(-(1.2 - 1.8 + 0.2 - 0.8) / 4)
    loss.backward()
    # No gradient where the ratio has gone far enough already; elsewhere -advantage * ratio / 4.
    np.testing.assert_allclose(new.grad, [[0, 1.8 / 4, -0.2 / 4, 0]], rtol=1e-5)


def test_clipped_loss_begins_as_reinforce():
    new = torch.tensor([[-1.0, -2.0, -0.3]], requires_grad=True)
    advantages, weights = torch.tensor([[1.0, -0.5, 2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    grads = []
    for loss in (clipped_loss(new, new.detach(), advantages, weights, 0.2), reinforce_loss(new, advantages, weights)):
        new.grad = None
        loss.backward()
        grads.append(new.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_losses_over_nothing_are_zero():
    nothing = torch.zeros(2, 3)
    assert reinforce_loss(torch.ones(2, 3), torch.ones(2, 3), nothing).item() == 0
    assert classification_loss(torch.ones(2, 3, 4), torch.zeros(2, 3, dtype=torch.long), nothing).item() == 0


def test_classification_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25]], [[0.1, 0.8, 0.1]]]))  # (2, 1, 3)
    labels = torch.tensor([[0], [1]])
    both = classification_loss(logits, labels, torch.ones(2, 1))
    assert both.item() == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    last = classification_loss(logits, labels, torch.tensor([[0.0], [1.0]]))
    assert last.item() == pytest.approx(-math.log(0.8))


def test_baseline_by_hand():
    assert baseline_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item() == 2.5


def test_location_density_is_a_gaussian():
    mean, std = torch.tensor([[0.1, -0.2]]), 0.3
    location = torch.tensor([[0.4, 0.1]])
    expected = torch.distributions.Normal(mean, std).log_prob(location).sum(-1)
    torch.testing.assert_close(location_log_prob(location, mean, std), expected)
    locations = torch.tensor([[[0.4, 0.1], [0.2, 0.3]], [[0.0, -0.9], [0.5, 0.5]], [[0.1, -0.2], [1.0, 1.0]]])  # (T, N, 2)
    expected = torch.distributions.Normal(mean, std).log_prob(locations).sum(-1)
    torch.testing.assert_close(location_log_prob(locations, mean.expand(3, 2, 2), std), expected)


def test_location_gradient_in_units_of_the_variance_does_not_depend_on_std():
    # std^2 times the gradient of log N is (l - mean): what `location_coef` is measured in.
    for std in (0.05, 0.5):
        mean = torch.tensor([[0.1, -0.2]], requires_grad=True)
        (std**2 * location_log_prob(torch.tensor([[0.4, 0.1]]), mean, std)).sum().backward()
        torch.testing.assert_close(mean.grad, torch.tensor([[0.3, 0.3]]))


def test_choices_are_a_softmax():
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    expected = torch.distributions.Categorical(logits=logits)
    choice = torch.tensor([2])
    torch.testing.assert_close(choice_log_prob(choice, logits), expected.log_prob(choice))
    torch.testing.assert_close(choice_entropy(logits), expected.entropy())
    logits, choice = torch.arange(12.0).reshape(2, 2, 3) ** 1.5, torch.tensor([[0, 2], [1, 0]])  # (T, N, K), (T, N)
    expected = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(choice_log_prob(choice, logits), expected.log_prob(choice))
    torch.testing.assert_close(choice_entropy(logits), expected.entropy())


def test_hold_inside_clips_and_lets_back_in():
    locations = torch.tensor([[-1.5, 0.5], [2.0, -1.0], [1.5, -3.0]], requires_grad=True)
    held = hold_inside(locations)
    torch.testing.assert_close(held, torch.tensor([[-1.0, 0.5], [1.0, -1.0], [1.0, -1.0]]))
    # Descent goes against the gradient: -1 at -1.5 leads back inside, 1 at -3 would lead further out.
    held.backward(torch.tensor([[-1.0, 2.0], [-1.0, 3.0], [1.0, 1.0]]))
    torch.testing.assert_close(locations.grad, torch.tensor([[-1.0, 2.0], [0.0, 3.0], [1.0, 0.0]]))
    locations = torch.tensor([[1.5, -1.5, 0.5]], requires_grad=True)  # However small the gradient is.
    hold_inside(locations).backward(torch.tensor([[-0.1, 0.1, 0.1]]))
    torch.testing.assert_close(locations.grad, torch.tensor([[0.0, 0.0, 0.1]]))
    locations.grad = None
    hold_inside(locations).backward(torch.tensor([[0.1, -0.1, -0.1]]))
    torch.testing.assert_close(locations.grad, torch.tensor([[0.1, -0.1, -0.1]]))


def test_a_location_mean_beyond_the_scene_counts_as_its_edge():
    mean, location = torch.tensor([[1.5, -3.0]], requires_grad=True), torch.tensor([[0.8, -1.1]])
    loss = -location_log_prob(location, mean, 0.2)
    torch.testing.assert_close(loss, -location_log_prob(location, torch.tensor([[1.0, -1.0]]), 0.2))
    # (mean - location) / std^2 in the first component, where it leads back inside; not in the second, which would leave.
    loss.backward()
    torch.testing.assert_close(mean.grad, torch.tensor([[(1.0 - 0.8) / 0.04, 0.0]]))


def test_gains_by_hand():
    # log softmax of (0, log 3) is log 1/4 and log 3/4; of (0, 0) log 1/2 each.
    even, odd = [0.0, 0.0], [0.0, math.log(3)]
    logits = torch.tensor([[even, even], [odd, odd], [even, odd]])  # (3, 2, 2)
    labels = torch.tensor([[1, 0], [1, 0], [1, 1]])
    dones = torch.tensor([[False, False], [False, True], [True, False]])
    up, down = math.log(3 / 4) - math.log(1 / 2), math.log(1 / 4) - math.log(1 / 2)
    # First: sure of the right class, then as unsure as before. Second: sure of the wrong one, then its episode ends.
    torch.testing.assert_close(gains(logits, labels, dones), torch.tensor([[up, down], [-up, 0], [0, 0]]))


def test_policy_loss_is_reinforces_until_actions_are_learned_from_again():
    log_probs, advantages, weights = torch.tensor([[-1.0, -2.0]]), torch.tensor([[2.0, -1.0]]), torch.ones(1, 2)
    assert policy_loss(log_probs, None, advantages, weights, 0.2) == reinforce_loss(log_probs, advantages, weights) == 0.0
    old = log_probs - torch.tensor([[0.5, 0.0]])  # The first action is e^0.5 times as likely as it was: clipped at 1.2.
    torch.testing.assert_close(policy_loss(log_probs, old, advantages, weights, 0.2), torch.tensor(-(1.2 * 2 - 1) / 2))
