"""Networks side by side that see the same glimpses."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from agents import RAM, RAMPolicy, make_vec_env
from agents.members import CoreMembers, GlimpseMembers, HeadMembers, joint_scores
from agents.networks import GlimpseNetwork, LSTMCore, NoCore, ReLUCore


def test_each_glimpse_network_makes_its_own_part():
    one, other = GlimpseNetwork((1, 4, 4), 2, 3, 5), GlimpseNetwork((1, 4, 4), 2, 3, 5)
    glimpse, location = torch.rand(6, 1, 4, 4), torch.rand(6, 2)
    joint = GlimpseMembers([one, other])(glimpse, location)
    assert joint.shape == (6, 10)
    assert torch.equal(joint[:, :5], one(glimpse, location))
    assert torch.equal(joint[:, 5:], other(glimpse, location))


@pytest.mark.parametrize("kind", [ReLUCore, LSTMCore])
def test_each_core_carries_its_own_state(kind):
    cores = [kind(4, 4) for _ in range(3)]
    joint = CoreMembers(cores)
    assert joint.num_states == kind.num_states
    inputs, state = torch.rand(2, 12), tuple(torch.rand(2, 12) for _ in range(kind.num_states))
    hidden, after = joint(inputs, state)
    for number, core in enumerate(cores):
        part = slice(4 * number, 4 * number + 4)
        own_hidden, own_after = core(inputs[:, part], tuple(one[:, part] for one in state))
        assert torch.equal(hidden[:, part], own_hidden)
        assert all(torch.equal(mine[:, part], its) for mine, its in zip(after, own_after, strict=True))


def test_cores_without_a_state():
    hidden, after = CoreMembers([NoCore(4, 4), NoCore(4, 4)])(torch.ones(2, 8), ())
    assert torch.equal(hidden, torch.ones(2, 8))
    assert after == ()


def test_each_head_reads_its_own_part():
    heads = [nn.Linear(2, 3), nn.Linear(2, 3)]
    hidden = torch.rand(5, 7, 4)
    votes = HeadMembers(heads)(hidden)
    assert votes.shape == (5, 7, 2, 3)
    torch.testing.assert_close(votes[..., 1, :], heads[1](hidden[..., 2:]))


def test_nobody_is_no_member():
    with pytest.raises(ValueError, match="networks must hold at least one, got none"):
        HeadMembers([])


def test_the_members_probabilities_are_averaged_not_their_scores():
    sure, unsure = torch.tensor([0.98, 0.01, 0.01]), torch.tensor([0.2, 0.5, 0.3])
    joint = joint_scores(torch.stack([sure.log() + 7, unsure.log()]))
    torch.testing.assert_close(joint.softmax(-1), (sure + unsure) / 2)


def make_model(**policy_kwargs):
    env = make_vec_env("GlimpseMNIST-v0", 4, num_glimpses=3, dataset="mnist-5k")
    return RAM("RAMPolicy", env, seed=3, policy_kwargs={"hidden_size": 32, "core_size": 64, **policy_kwargs})


def forward(policy):
    obs = {name: torch.rand(4, *box.shape) for name, box in policy.observation_space.items()}
    return policy(obs, policy.initial_state(4))


def test_the_policy_decides_by_what_its_members_say_together():
    policy = make_model(members=2).policy
    output = forward(policy)
    assert output.votes.shape == (4, 2, 10)
    torch.testing.assert_close(output.logits[0].softmax(-1), output.votes.softmax(-1).mean(1))
    alone = forward(make_model().policy)
    assert torch.equal(alone.votes.squeeze(1), alone.logits[0])


def test_each_member_learns_from_its_own_error():
    model = make_model(members=2)
    policy = model.policy
    nn.functional.cross_entropy(forward(policy).votes[:, 0], torch.zeros(4, dtype=torch.long)).backward()
    for part in (policy.glimpse_network, policy.core, policy.class_head):
        assert all(weight.grad.abs().sum() > 0 for weight in part[0].parameters() if weight.ndim > 1)
        assert all(weight.grad is None or not weight.grad.any() for weight in part[1].parameters())


def test_the_loss_is_the_mean_of_the_members_losses():
    model = make_model(members=2)
    seen = {}

    def spy(batch, outputs):
        seen.update(losses=RAM._losses(model, batch, outputs), batch=batch, votes=outputs.votes.detach())
        return seen["losses"]

    model._losses = spy
    model.learn(12)
    labels = seen["batch"].labels.flatten()
    each = [nn.functional.cross_entropy(seen["votes"][:, :, member].flatten(0, 1), labels) for member in range(2)]
    torch.testing.assert_close(seen["losses"]["class_loss"].detach(), sum(each) / 2)


@pytest.mark.parametrize("core", ["relu", "lstm", "gru"])
def test_members_are_saved_and_loaded(core, tmp_path):
    model = make_model(members=2, core=core, dropout=0.1, muon_gain=1.0, glimpse_network="retina")
    model.learn(24)
    model.save(tmp_path / "model.zip")
    loaded = RAM.load(tmp_path / "model.zip")
    assert loaded.policy.members == 2
    obs = model.get_env().reset()
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_a_policy_is_made_again_from_its_own_words():
    policy = make_model(members=4).policy
    assert RAMPolicy(**policy._get_constructor_parameters()).members == 4
