import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import io
from pathlib import Path
from typing import NamedTuple

from conftest import DATASET, make, make_vec
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule

from ram_envs.agents import RAM, load_pretrained, make_vec_env
from ram_envs.agents.losses import Batch
from ram_envs.agents.policy import Outputs

T = 4
SMALL = {"hidden_size": 16, "core_size": 32}
STORED = Path(__file__).parent / "data" / "ram_8dd0ac8"


def vec_env(num_envs=16, **kwargs):
    options = {"dataset": DATASET, "action_format": "box", "num_glimpses": T, **kwargs}
    return make_vec_env("GlimpseMNIST-v0", num_envs, **options)


def make_model(env=None, policy_kwargs=None, **kwargs):
    return RAM("RAMPolicy", env or vec_env(), seed=0, device="cpu", policy_kwargs={**SMALL, **(policy_kwargs or {})}, **kwargs)


def weights(model):
    return {name: p.detach().clone() for name, p in model.policy.named_parameters()}


def assert_equal_weights(one, other):
    for (name, first), second in zip(weights(one).items(), weights(other).values(), strict=True):
        assert torch.equal(first, second), name


def changed(before, model):
    return {name.split(".")[0] for name, p in model.policy.named_parameters() if (p != before[name]).any()}


class Update(NamedTuple):
    batch: Batch
    outputs: Outputs
    losses: dict[str, torch.Tensor]
    gradients: dict[str, dict[str, torch.Tensor | None]]  # Of each loss, by parameter.


def note_updates(model, steps):
    """The updates of learning for `steps` steps of each environment."""
    updates, parameters = [], dict(model.policy.named_parameters())

    def losses(batch, outputs, compute=model.losses):
        terms, gradients = compute(batch, outputs), {}
        for name, term in terms.items():
            parts = torch.autograd.grad(term, parameters.values(), retain_graph=True, allow_unused=True)
            gradients[name] = dict(zip(parameters, parts, strict=True))
        updates.append(Update(batch, outputs, terms, gradients))
        return terms

    model.losses = losses
    model.learn(model.n_envs * steps)
    return updates


def trained_by(gradients):
    """The modules that a loss trains."""
    return {name.split(".")[0] for name, part in gradients.items() if part is not None and part.any()}


def test_every_weight_learns_and_losses_are_logged_one_by_one(tmp_path):
    model = make_model()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    before = weights(model)
    model.learn(16 * T * 3)
    model.logger.close()
    assert changed(before, model) == {"glimpse_network", "core", "location_head", "class_head", "baseline_head"}
    header = (tmp_path / "progress.csv").read_text("utf-8").splitlines()[0].split(",")
    expected = {f"train/{name}" for name in ("location_loss", "baseline_loss", "class_loss", "loss", "learning_rate")}
    assert expected | {"rollout/ep_rew_mean", "rollout/success_rate", "time/fps"} <= set(header)


def test_each_loss_trains_what_the_paper_says():
    for update in note_updates(make_model(), 2 * T):
        assert {name: trained_by(part) for name, part in update.gradients.items()} == {
            "location_loss": {"location_head"},
            "baseline_loss": {"baseline_head"},
            "class_loss": {"class_head", "core", "glimpse_network"},
        }


def test_the_terms_are_weighted():
    plain = note_updates(make_model(vf_coef=1.0), T)[0].losses
    weighted = note_updates(make_model(vf_coef=0.25, location_coef=3.0), T)[0].losses
    assert weighted["baseline_loss"] == 0.25 * plain["baseline_loss"]
    torch.testing.assert_close(weighted["location_loss"], 3.0 * plain["location_loss"])
    assert weighted["class_loss"] == plain["class_loss"]


def test_nothing_is_learned_of_random_locations(tmp_path):
    model = make_model(policy_kwargs={"location_policy": "random"})
    before = weights(model)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(16 * T * 3)
    model.logger.close()
    assert changed(before, model) == {"glimpse_network", "core", "class_head", "baseline_head"}
    assert "location_loss" not in (tmp_path / "progress.csv").read_text("utf-8")
    model.save(tmp_path / "model.zip")
    assert RAM.load(tmp_path / "model.zip", device="cpu").policy.options.location_policy == "random"


def test_the_last_location_is_not_learned_from():
    # With one glimpse the only location named is the last one, which nobody looks at.
    model = make_model(vec_env(num_glimpses=1))
    before = weights(model)
    model.learn(16 * 3)
    assert changed(before, model) == {"glimpse_network", "core", "class_head", "baseline_head"}


def test_cross_entropy_at_the_last_step_alone_is_the_papers():
    for steps, counted in (("all", T), ("last", 1)):
        (update,) = note_updates(make_model(class_loss_steps=steps), T)
        logits, labels = update.outputs.logits[0][-counted:], update.batch.labels[-counted:]
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        torch.testing.assert_close(update.losses["class_loss"], expected)


def test_labels_are_those_of_the_images_seen():
    (update,) = note_updates(make_model(), T)
    env = vec_env().venv
    env.seed(0)
    env.reset()
    assert update.batch.labels.tolist() == [[info["label"] for info in env.reset_infos]] * T


def test_reinforce_without_labels():
    class Unlabelled(gym.vector.VectorWrapper):
        def step(self, actions):
            obs, reward, terminated, truncated, info = self.env.step(actions)
            info.pop("label")
            info.get("final_info", {}).pop("label", None)
            return obs, reward, terminated, truncated, info

    env = Unlabelled(make_vec(16, num_glimpses=T, autoreset_mode="SameStep", action_format="box"))
    model = make_model(env, class_loss="reinforce", ent_coef=0.01)
    before = weights(model)
    model.learn(16 * T * 3)
    assert "class_head" in changed(before, model)
    with pytest.raises(ValueError, match=r'info\["label"\].*use class_loss="reinforce"'):
        make_model(env).learn(16)


@pytest.mark.parametrize("n_steps", [None, 3, 6])
@pytest.mark.parametrize("core", ["relu", "lstm"])
def test_rollouts_of_any_length(n_steps, core):
    model = make_model(n_steps=n_steps, policy_kwargs={"core": core})
    assert len(note_updates(model, 24)) == 24 // (n_steps or T)
    assert model.num_timesteps == 16 * 24


def test_rollouts_out_of_step_are_cut_where_episodes_end():
    class Staggered(gym.vector.VectorWrapper):
        """Half of the environments are a step behind the others."""

        def reset(self, *, seed=None, options=None):
            self.env.reset(seed=seed)
            self.env.step(self.env.action_space.sample())
            return self.env.reset(options={"reset_mask": np.arange(self.num_envs) % 2 == 0})

    env = Staggered(make_vec(8, action_format="box", autoreset_mode="SameStep"))  # Episodes of 7 steps.
    updates = note_updates(make_model(env, n_steps=5), 20)
    assert len(updates) == 4
    assert all(torch.isfinite(loss) for update in updates for loss in update.losses.values())
    ends = torch.cat([1 - update.batch.looked_at for update in updates])  # (20, 8)
    assert ends[:, 0].nonzero().flatten().tolist() == [6, 13]
    assert ends[:, 1].nonzero().flatten().tolist() == [5, 12, 19]


def test_one_epoch_of_ppo_is_a_step_of_reinforce():
    """Run again over the stored rollout, the network gives the same outputs, and the clipped surrogate the very gradient."""
    hyperparams = {"class_loss": "reinforce", "gae_lambda": 0.9, "normalize_advantage": True, "ent_coef": 0.01}
    once, again = (note_updates(make_model(**hyperparams, n_epochs=n_epochs), T) for n_epochs in (1, 2))
    assert (len(once), len(again)) == (1, 2)
    for name, parts in once[0].gradients.items():
        for one, other in zip(parts.values(), again[0].gradients[name].values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    kept, unrolled = (
        updates[0].outputs.value.sort(dim=1).values for updates in (once, again)
    )  # Minibatches have an order of their own.
    torch.testing.assert_close(kept, unrolled)


@pytest.mark.parametrize("n_steps", [None, 5])
def test_ppo_takes_a_step_for_each_minibatch_of_each_epoch(n_steps):
    falling = LinearSchedule(0.01, 0, 1), LinearSchedule(0.3, 0.1, 1)
    how = {"n_steps": n_steps, "ent_coef": falling[0], "clip_range": falling[1]}
    model = make_model(n_epochs=3, n_minibatches=2, class_loss="reinforce", **how)
    before = weights(model)
    assert len(note_updates(model, 20)) == 6 * 20 // (n_steps or T)
    assert changed(before, model) == {"glimpse_network", "core", "location_head", "class_head", "baseline_head"}
    assert (model.now(model.ent_coef), model.now(model.clip_range)) == pytest.approx((0.0, 0.1))  # At the end of their schedules.


def test_seeds_make_runs_repeat():
    assert_equal_weights(*(make_model(vec_env(8)).learn(8 * T * 5) for _ in range(2)))


@pytest.mark.parametrize(
    "env_kwargs", [{}, {"stop_action": True, "glimpse_cost": 0.1}, {"zoom_action": True}], ids=["class", "stop", "zoom"]
)
def test_the_same_is_learned_from_dict_and_box_actions(env_kwargs):
    models = [make_model(vec_env(action_format=form, **env_kwargs)).learn(16 * T * 6) for form in ("dict", "box")]
    assert_equal_weights(*models)
    further = {"stop": 2} if "stop_action" in env_kwargs else {"zoom": 3} if env_kwargs else {}
    for model in models:  # Class and further choices are known apart.
        assert model.policy.choices == {"class": 10, **further}


def test_save_load_and_continue(tmp_path):
    env = vec_env()
    hyperparams = {"class_loss_steps": "last", "location_coef": 0.5, "n_epochs": 2}
    model = make_model(env, learning_rate=LinearSchedule(1e-3, 0, 1), **hyperparams)
    model.learn(16 * T * 3)
    model.save(tmp_path / "model.zip")
    loaded = RAM.load(tmp_path / "model.zip", env=env, device="cpu")
    assert {name: getattr(loaded, name) for name in hyperparams} == hyperparams
    assert loaded.num_timesteps == 16 * T * 3
    obs = env.reset()
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    old, new = model.policy.optimizer.state_dict(), loaded.policy.optimizer.state_dict()
    assert old["param_groups"][0]["lr"] == new["param_groups"][0]["lr"] < 1e-3
    for moments, others in zip(old["state"].values(), new["state"].values(), strict=True):
        torch.testing.assert_close(moments, others)
    loaded.learn(16 * T, reset_num_timesteps=False)
    assert loaded.num_timesteps == 16 * T * 4
    # Without an environment: there to predict.
    alone = RAM.load(io.BytesIO((tmp_path / "model.zip").read_bytes()), device="cpu")
    np.testing.assert_array_equal(alone.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_a_model_stored_by_version_0_1_0_acts_as_it_did_and_continues_learning():
    """Stored by commit 8dd0ac8, with an LSTM, saliency, a path, Muon, a stop action and a weight average."""
    model, known, state = RAM.load(STORED.with_suffix(".zip"), device="cpu"), np.load(STORED.with_suffix(".npz")), None
    for glimpse, location, expected in zip(known["glimpse"], known["location"], known["actions"], strict=True):
        actions, state = model.predict({"glimpse": glimpse, "location": location}, state, deterministic=True)
        np.testing.assert_allclose(actions, expected, rtol=1e-5)
    options = model.policy.options
    assert (options.core, options.location_input) == ("lstm", "saliency")
    assert options.path_steps > 0
    assert options.muon_scale > 0
    height, width = np.broadcast_to(model.policy.scene_size, 2)
    images, labels = np.random.default_rng(0).random((20, height, width), np.float32), np.arange(20) % 3
    retina = {"glimpse_size": 4, "num_scales": 2, "num_glimpses": 3, "stop_action": True}
    model.set_env(make_vec_env("GlimpseClassification-v0", 4, dataset=(images, labels), **retina))
    before, done = weights(model), model.num_timesteps
    model.learn(4 * 9, reset_num_timesteps=False)
    assert model.num_timesteps >= done + 4 * 9
    assert {"glimpse_network", "core", "path", "class_head", "look_head", "baseline_head"} <= changed(before, model)


def test_options_by_the_names_of_version_0_1_0():
    options = make_model(policy_kwargs={"scan_steps": 2, "scan_gain": 1.5, "location_gain": 0.2}).policy.options
    assert (options.path_steps, options.path_scale, options.location_scale) == (2, 1.5, 0.2)


def test_a_path_to_begin_with_is_no_option_any_more(tmp_path):
    for name in ("path_start", "scan_start"):
        with pytest.raises(ValueError, match=rf"{name} is no option any more, .* got \[\[0.5, 0.5\]\]"):
            make_model(policy_kwargs={"path_steps": 2, name: [[0.5, 0.5]]})
    model = make_model(policy_kwargs={"path_steps": 2, "path_start": None})
    model.policy_kwargs = {**model.policy_kwargs, "path_start": [[0.5, 0.5]]}  # As models of earlier versions were stored.
    model.save(tmp_path / "model")
    loaded = RAM.load(tmp_path / "model")
    assert torch.equal(loaded.policy.path, model.policy.path) and "path_start" not in loaded.policy_kwargs


def test_set_parameters_and_set_env():
    model, other = make_model(), make_model()
    model.learn(16 * T)
    other.set_parameters(model.get_parameters())
    assert_equal_weights(model, other)
    other.set_env(vec_env(16))
    other.learn(16 * T)


def test_callbacks_and_evaluation(tmp_path):
    model = make_model(tensorboard_log=str(tmp_path / "tb"))
    evaluation = EvalCallback(
        vec_env(20, split="validation"),
        n_eval_episodes=40,
        eval_freq=T,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    checkpoints = CheckpointCallback(save_freq=T, save_path=str(tmp_path / "checkpoints"), name_prefix="ram")
    model.learn(16 * T * 4, callback=[evaluation, checkpoints], progress_bar=True)
    assert (tmp_path / "best_model.zip").exists()
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (4, 40)
    assert len(list((tmp_path / "checkpoints").glob("ram_*_steps.zip"))) == 4
    assert list((tmp_path / "tb").glob("RAM_1/events*"))
    RAM.load(tmp_path / "checkpoints" / "ram_256_steps.zip")


def test_evaluate_policy_sees_each_image_once():
    # Small images: what counts is the order.
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (70, 8, 8), dtype=np.uint8), np.arange(70) % 3
    env = make_vec_env("GlimpseClassification-v0", 30, dataset=data, glimpse_size=4, num_glimpses=2, image_order="sequential")
    shown = []

    def note(local, _):
        if local["done"]:
            shown.append(local["info"]["index"])

    evaluate_policy(make_model(env), env, n_eval_episodes=env.get_attr("num_images")[0], callback=note)
    assert sorted(shown) == list(range(70))


def test_environments_of_every_kind():
    kinds = (
        make(num_glimpses=T),  # Dict actions.
        make(num_glimpses=T, action_format="box"),
        make_vec(2, num_glimpses=T),  # Gymnasium's own default: autoreset at the next step, Dict actions.
        make_vec(2, num_glimpses=T, action_format="box", autoreset_mode="Disabled"),
    )
    for env in kinds:
        model = make_model(env).learn(2 * T)
        assert model.num_timesteps >= 2 * T
        evaluate_policy(model, model.get_env(), n_eval_episodes=2)
        assert len(model.ep_info_buffer) > 0


def test_an_id_is_enough():
    gym.register("GlimpseSmall-v0", "ram_envs.env:GlimpseEnv", kwargs={"dataset": "mnist-5k", "num_glimpses": 2})
    assert RAM("RAMPolicy", "GlimpseSmall-v0", device="cpu").learn(4).num_timesteps == 4
    assert RAM(env="GlimpseSmall-v0", device="cpu").policy_class.__name__ == "RAMPolicy"


def test_unknown_hyperparameters_are_named():
    with pytest.raises(TypeError, match="class_los, location_policy is not among the RAMHyperparams: learning_rate, n_steps, "):
        make_model(class_los="reinforce", location_policy="random")


def test_environments_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r'a Dict observation with "glimpse" .* is needed, got Box'):
        RAM("RAMPolicy", "CartPole-v1")
    with pytest.raises(ValueError, match='action_format="dict" or "box", got MultiDiscrete'):
        make_model(vec_env(action_format="multidiscrete"))


def test_the_scenes_size_is_read_from_the_environment(tmp_path):
    saliency = {"location_input": "saliency"}
    model = make_model(vec_env(2, canvas_size=40), saliency)
    assert model.policy.scene_size == [40, 40]
    model.save(tmp_path / "model.zip")
    assert RAM.load(tmp_path / "model.zip", env=vec_env(2, canvas_size=40), device="cpu").policy.scene_size == [40, 40]
    for use in (model.set_env, lambda env: RAM.load(tmp_path / "model.zip", env=env, device="cpu")):
        with pytest.raises(ValueError, match=r"scene_size must be that of the environment's scenes, \[28, 28\], got \[40, 40\]"):
            use(vec_env(2))
    with pytest.raises(ValueError, match=r"scene_size must be that of the environment's scenes, \[28, 28\], got 60"):
        make_model(vec_env(2), {**saliency, "scene_size": 60})
    env = make_vec_env("GlimpseClutteredMNIST-v0", 2, dataset="mnist-5k", canvas_size=80)
    with pytest.raises(ValueError, match=r"scene_size must be that of the environment's scenes, \[80, 80\], got \[60, 60\]"):
        load_pretrained("GlimpseClutteredMNIST-v0", env, device="cpu")


# What RAM offers beside the paper's objective.


def test_gains_add_up_to_the_log_likelihood_and_train_the_location_alone():
    (update,) = note_updates(make_model(location_reward="gain", vf_coef=0.0), T)
    log_probs = update.outputs.logits[0].log_softmax(-1).gather(-1, update.batch.labels.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(update.batch.returns[0], (log_probs[-1] - log_probs[0]).detach(), rtol=1e-4, atol=1e-6)
    assert trained_by(update.gradients["location_loss"]) == {"location_head"}


@pytest.mark.parametrize("minibatches", [1, 2])
def test_a_baseline_for_each_class_learns_that_of_the_true_one(minibatches):
    model = make_model(vec_env(2, num_glimpses=1), {"baseline_by_class": True}, n_minibatches=minibatches)
    assert model.policy.baseline_head.out_features == 10
    before = weights(model)["baseline_head.bias"]
    labels = torch.cat([update.batch.labels.flatten() for update in note_updates(model, 1)])
    moved = model.policy.baseline_head.bias.detach() != before
    assert set(moved.nonzero().flatten().tolist()) == set(labels.tolist())


def test_what_the_gain_the_baseline_of_a_class_and_dropout_need():
    for kwargs, message in (
        ({"policy_kwargs": {"baseline_by_class": True}, "class_loss": "reinforce"}, "baseline_by_class needs class_loss"),
        ({"policy_kwargs": {"dropout": 0.1}, "n_epochs": 2}, r"dropout needs n_epochs=1 and n_minibatches=1, .* got 2 and 1"),
        ({"location_reward": "gain", "env": vec_env(stop_action=True)}, 'location_reward="gain" leaves out what a look costs'),
    ):
        with pytest.raises(ValueError, match=message):
            make_model(**kwargs)


def test_an_evaluation_in_mid_rollout_leaves_learning_as_it_is():
    class Evaluate(BaseCallback):
        def _on_step(self):
            self.model.predict(self.locals["new_obs"])
            return True

    seen = []
    model = make_model(policy_kwargs={"dropout": 0.1})
    model.policy.dropout.register_forward_hook(lambda module, *_: seen.append(module.training))
    model.learn(16 * T, Evaluate())
    assert seen == [True, *[False, True] * (T - 1), False]


def test_the_locations_width_is_annealed(tmp_path):
    model = make_model(final_location_std=0.02, weight_average=0.5, policy_kwargs={"location_std": 0.2})
    widths = []

    class Note(BaseCallback):
        def _on_step(self):
            widths.append(self.model.policy.std)
            return True

    model.learn(4 * 16 * T, Note())
    np.testing.assert_allclose(widths[::T], 0.2 * 10 ** -np.array([0, 0.25, 0.5, 0.75]))
    assert model.acting_policy is not model.policy
    assert model.acting_policy.std == model.policy.std  # Samples are as wide as while learning.
    model.save(tmp_path / "model.zip")
    loaded = RAM.load(tmp_path / "model.zip", device="cpu").policy
    assert loaded.options.location_std == 0.2
    assert loaded.std == pytest.approx(0.02)  # It samples as widely as it did when it was saved.


def test_an_environment_with_other_choices_is_refused():
    model = make_model(vec_env(2, stop_action=True))
    other = make_vec_env("GlimpseMNIST-v0", 2, dataset=(np.zeros((12, 28, 28), np.uint8), np.arange(12)), num_glimpses=T)
    with pytest.raises(ValueError, match=r"spaces do not match.*choices=\{'class': 10, 'stop': 2\}.*choices=\{'class': 12\}"):
        model.set_env(other)
