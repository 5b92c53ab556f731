"""What RAM offers beside the paper's objective."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stable_baselines3.common.callbacks import BaseCallback
from test_ram import T, make_model, vec_env, weights

from agents import RAM


def test_gains_add_up_to_the_log_likelihood_and_train_the_location_alone():
    model = make_model(location_reward="gain", vf_coef=0.0)
    model._setup_learn(10**6)
    model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, None)
    rollout = model.rollout_buffer
    outputs = rollout.stacked_outputs()
    labels = torch.as_tensor(rollout.labels)
    rewards = model._rewards(rollout, outputs, labels)
    log_probs = outputs.logits[0].log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    np.testing.assert_allclose(rewards.sum(axis=0), (log_probs[-1] - log_probs[0]).detach(), rtol=1e-4, atol=1e-6)
    model.policy.zero_grad()
    model._losses(model._batch(rollout, outputs), outputs)["location_loss"].backward()
    trained = {n.split(".")[0] for n, p in model.policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {"location_head"}


@pytest.mark.parametrize("minibatches", [1, 2])
def test_a_baseline_for_each_class_learns_that_of_the_true_one(minibatches):
    model = make_model(vec_env(2, num_glimpses=1), policy_kwargs={"baseline_by_class": True}, n_minibatches=minibatches)
    assert model.policy.baseline_head.out_features == 10
    before = weights(model)["baseline_head.bias"]
    seen = set()

    def note(infos, compute=model._labels):
        seen.update(labels := compute(infos))
        return labels

    model._labels = note
    model.learn(2)
    moved = model.policy.baseline_head.bias.detach() != before
    assert set(torch.nonzero(moved).flatten().tolist()) == seen


def test_what_the_gain_and_the_baseline_of_a_class_need():
    for kwargs, message in (
        ({"location_reward": "speed"}, r"location_reward must be \"success\" or \"gain\", got 'speed'"),
        ({"location_reward": "gain", "class_loss": "reinforce"}, 'location_reward="gain" needs class_loss="cross_entropy"'),
        ({"policy_kwargs": {"baseline_by_class": True}, "class_loss": "reinforce"}, "baseline_by_class needs class_loss"),
    ):
        with pytest.raises(ValueError, match=message):
            make_model(**kwargs)
    env = vec_env(stop_action=True, action_format="dict")
    with pytest.raises(ValueError, match='location_reward="gain" leaves out what a look costs'):
        make_model(env, location_reward="gain")


def test_dropout_is_for_rollouts_that_are_learned_from_once():
    with pytest.raises(ValueError, match=r"dropout needs n_epochs=1 and n_minibatches=1, .* got 2 and 1"):
        make_model(policy_kwargs={"dropout": 0.1}, n_epochs=2)


def test_an_evaluation_in_mid_rollout_leaves_learning_as_it_is():
    class Evaluate(BaseCallback):
        def _on_step(self):
            self.model.predict(self.model._last_obs)
            return True

    seen = []
    model = make_model(policy_kwargs={"dropout": 0.1})
    model.policy.dropout.register_forward_hook(lambda module, *_: seen.append(module.training))
    model.learn(16 * T, Evaluate())
    assert seen == [True, *[False, True] * (T - 1), False]


def test_the_locations_width_is_annealed(tmp_path):
    model = make_model(final_location_std=0.02, policy_kwargs={"location_std": 0.2})
    widths = []

    class Note(BaseCallback):
        def _on_step(self):
            widths.append(self.model.policy.std_now)
            return True

    model.learn(4 * 16 * T, Note())
    np.testing.assert_allclose(widths[::T], 0.2 * 10 ** -np.array([0, 0.25, 0.5, 0.75]))
    model.save(tmp_path / "model.zip")
    loaded = RAM.load(tmp_path / "model.zip", device="cpu").policy
    assert loaded.location_std == 0.2
    assert loaded.std_now == pytest.approx(0.02)  # It samples as widely as it did when it was saved.
    with pytest.raises(ValueError, match="final_location_std must be above 0 or None, got 0"):
        make_model(final_location_std=0)
