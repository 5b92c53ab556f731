import io

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import DATASET, make, make_vec
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule

from agents import RAM, make_vec_env

T = 4


def vec_env(num_envs=16, **kwargs):
    options = {"dataset": DATASET, "action_format": "box", "num_glimpses": T, **kwargs}
    return make_vec_env("GlimpseMNIST-v0", num_envs, **options)


def make_model(env=None, **kwargs):
    return RAM("RAMPolicy", env or vec_env(), seed=0, device="cpu", **kwargs)


def weights(model):
    return {name: p.detach().clone() for name, p in model.policy.named_parameters()}


def changed(before, model):
    return {name.split(".")[0] for name, p in model.policy.named_parameters() if (p != before[name]).any()}


def losses_of(model):
    """The losses of the rollout just collected."""
    outputs = model.rollout_buffer.stacked_outputs()
    return model._losses(model._batch(model.rollout_buffer, outputs), outputs)


def test_every_weight_learns_and_losses_are_logged_one_by_one(tmp_path):
    model = make_model()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    before = weights(model)
    model.learn(16 * T * 3)
    model.logger.close()
    assert changed(before, model) == {"glimpse_network", "core", "location_head", "class_head", "baseline_head"}
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    expected = {f"train/{name}" for name in ("location_loss", "baseline_loss", "class_loss", "loss", "learning_rate")}
    assert expected | {"rollout/ep_rew_mean", "rollout/success_rate", "time/fps"} <= set(header)


def test_the_location_term_alone_trains_the_location_network():
    model = make_model(vf_coef=0.0, location_coef=1e6, max_grad_norm=1e9)
    model.learn(16 * T * 4)
    losses = None

    def capture(batch, outputs, compute=model._losses):
        nonlocal losses
        losses = compute(batch, outputs)
        return losses

    model._losses = capture
    model.learn(16 * T)
    model.policy.zero_grad()
    # The graph is gone after learning: what it trained shows in a fresh one.
    model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, None)
    losses_of(model)["location_loss"].backward()
    trained = {n.split(".")[0] for n, p in model.policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {"location_head"}
    assert set(losses) == {"location_loss", "baseline_loss", "class_loss"}


def test_nothing_is_learned_of_random_locations(tmp_path):
    model = make_model(location_policy="random")
    before = weights(model)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(16 * T * 3)
    model.logger.close()
    assert changed(before, model) == {"glimpse_network", "core", "class_head", "baseline_head"}
    assert "location_loss" not in (tmp_path / "progress.csv").read_text()
    model.save(tmp_path / "model.zip")
    loaded = RAM.load(tmp_path / "model.zip", device="cpu")
    assert loaded.location_policy == loaded.policy.location_policy == "random"
    with pytest.raises(ValueError, match="location_policy must be one of"):
        make_model(location_policy="fixed")


def test_the_last_location_is_not_learned_from():
    # With one glimpse the only location named is the last one, which nobody looks at.
    model = make_model(vec_env(num_glimpses=1))
    before = weights(model)
    model.learn(16 * 3)
    assert changed(before, model) == {"glimpse_network", "core", "class_head", "baseline_head"}


def test_cross_entropy_at_the_last_step_alone_is_the_papers():
    for steps, counted in (("all", T), ("last", 1)):
        model = make_model(class_loss_steps=steps)
        model._setup_learn(10**6)
        model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, None)
        rollout = model.rollout_buffer
        logits = torch.stack([output.logits[0] for output in rollout.outputs[-counted:]])
        labels = torch.as_tensor(np.array(rollout.labels[-counted:]))
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        torch.testing.assert_close(losses_of(model)["class_loss"], expected)


def test_labels_are_those_of_the_images_seen():
    model = make_model()
    model._setup_learn(10**6)
    task = model.env.unwrapped.env.unwrapped.task
    expected = task.labels.tolist()
    model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, None)
    assert model.rollout_buffer.labels == [expected] * T


def test_reinforce_without_labels():
    class Unlabelled(gym.vector.VectorWrapper):
        def step(self, actions):
            obs, reward, terminated, truncated, info = self.env.step(actions)
            info.pop("label")
            return obs, reward, terminated, truncated, info

    env = Unlabelled(make_vec(16, num_glimpses=T, autoreset_mode="SameStep", action_format="box"))
    model = RAM("RAMPolicy", env, class_loss="reinforce", ent_coef=0.01, seed=0, device="cpu")
    before = weights(model)
    model.learn(16 * T * 3)
    assert "class_head" in changed(before, model)
    with pytest.raises(ValueError, match=r'info\["label"\].*use class_loss="reinforce"'):
        RAM("RAMPolicy", env, device="cpu").learn(16)


@pytest.mark.parametrize("n_steps", [None, 3, 6])
@pytest.mark.parametrize("core", ["relu", "lstm"])
def test_rollouts_of_any_length(n_steps, core):
    model = make_model(n_steps=n_steps, policy_kwargs={"core": core})
    model.learn(16 * 24)
    assert model.num_timesteps == 16 * 24
    assert model._n_updates == 24 // (n_steps or T)


def test_rollouts_out_of_step_are_cut_where_episodes_end():
    env = gym.make_vec("GlimpseMNIST-v0", 8, dataset=DATASET, action_format="box", autoreset_mode="SameStep")
    model = RAM("RAMPolicy", env, seed=0, device="cpu", n_steps=5)
    model._setup_learn(10**6)
    env.step(env.action_space.sample())
    env.reset(options={"reset_mask": np.arange(8) % 2 == 0})
    callback = model._init_callback(None)
    for _ in range(4):
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 5)
        assert all(torch.isfinite(loss) for loss in losses_of(model).values())
        model.train()


def test_the_kept_graph_equals_a_second_run_of_the_network():
    model = make_model()
    model._setup_learn(10**6)
    seen = []
    policy_forward = model.policy.forward
    model.policy.forward = lambda obs, state: seen.append(obs) or policy_forward(obs, state)
    model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, None)
    state = model.policy.initial_state(16)
    for obs, kept in zip(seen, model.rollout_buffer.outputs, strict=True):
        output = policy_forward(obs, state)
        state = output.state
        torch.testing.assert_close(output.logits, kept.logits)
        torch.testing.assert_close(output.location_mean, kept.location_mean)


def test_one_epoch_of_ppo_is_a_step_of_reinforce():
    """Run again over the stored rollout, the clipped surrogate gives the very gradient of the kept graph."""
    settings = {"class_loss": "reinforce", "gae_lambda": 0.9, "normalize_advantage": True, "ent_coef": 0.01}
    once, again = make_model(**settings), make_model(**settings, n_epochs=2, max_grad_norm=1e9)
    grads = []
    for model in (once, again):
        model.set_random_seed(0)
        model._setup_learn(10**6)
        model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, None)
        rollout, envs = model.rollout_buffer, np.arange(16)
        batch = model._batch(rollout, rollout.stacked_outputs())
        outputs = rollout.stacked_outputs() if model is once else model.policy.unroll(*rollout.inputs().of(envs))
        sum(model._losses(batch.of(envs), outputs).values()).backward()
        grads.append([p.grad for p in model.policy.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("n_steps", [None, 5])
def test_ppo_takes_a_step_for_each_minibatch_of_each_epoch(n_steps, tmp_path):
    model = make_model(n_epochs=3, n_minibatches=2, n_steps=n_steps, class_loss="reinforce", ent_coef=LinearSchedule(0.01, 0, 1))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    before = weights(model)
    model.learn(16 * 20)
    assert model._n_updates == 6 * 20 // (n_steps or T)
    assert changed(before, model) == {"glimpse_network", "core", "location_head", "class_head", "baseline_head"}
    model.logger.close()
    assert model._entropy_weight() == 0.0  # At the end of its schedule.
    model.save(tmp_path / "model.zip")
    assert RAM.load(tmp_path / "model.zip").n_epochs == 3


def test_seeds_make_runs_repeat():
    runs = [make_model(vec_env(8)).learn(8 * T * 5) for _ in range(2)]
    for (name, one), other in zip(weights(runs[0]).items(), weights(runs[1]).values(), strict=True):
        assert torch.equal(one, other), name


def test_save_load_and_go_on(tmp_path):
    env = vec_env()
    model = make_model(env, learning_rate=LinearSchedule(1e-3, 0, 1), class_loss_steps="last", location_coef=0.5)
    model.learn(16 * T * 3)
    model.save(tmp_path / "model.zip")
    loaded = RAM.load(tmp_path / "model.zip", env=env, device="cpu")
    assert (loaded.class_loss_steps, loaded.location_coef, loaded.num_timesteps) == ("last", 0.5, 16 * T * 3)
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


def test_set_parameters_and_set_env():
    model, other = make_model(), make_model()
    model.learn(16 * T)
    other.set_parameters(model.get_parameters())
    for one, copied in zip(weights(model).values(), weights(other).values(), strict=True):
        assert torch.equal(one, copied)
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
    env = vec_env(30, split="test", image_order="sequential")
    size = len(env.unwrapped.env.unwrapped.task.images.labels)
    shown = []

    def note(local, _):
        if local["done"]:
            shown.append(local["info"]["index"])

    evaluate_policy(make_model(), env, n_eval_episodes=size, callback=note)
    assert sorted(shown) == list(range(size))


def test_a_callback_that_stops_in_mid_episode():
    class Stop(BaseCallback):
        def _on_step(self):
            return self.n_calls < 2

    model = make_model()
    model.learn(10**6, callback=Stop())
    assert model.num_timesteps == 32
    model.learn(16 * T, reset_num_timesteps=False)  # Begins whole episodes again.
    assert model._n_updates == 1


def test_environments_of_every_kind():
    kinds = (
        make(num_glimpses=T),  # Dict actions.
        make(num_glimpses=T, action_format="box"),
        make_vec(2, num_glimpses=T),  # Gymnasium's own default: autoreset at the next step, Dict actions.
        make_vec(2, num_glimpses=T, action_format="box", autoreset_mode="Disabled"),
    )
    for env in kinds:
        model = RAM("RAMPolicy", env, device="cpu").learn(2 * T)
        assert model.num_timesteps >= 2 * T
        evaluate_policy(model, model.get_env(), n_eval_episodes=2)
        assert len(model.ep_info_buffer) > 0


def test_an_id_is_enough():
    gym.register("GlimpseSmall-v0", "ram_envs.env:GlimpseEnv", kwargs={"dataset": "mnist-5k", "num_glimpses": 2})
    assert RAM("RAMPolicy", "GlimpseSmall-v0", device="cpu").learn(4).num_timesteps == 4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"class_loss": "mse"}, "class_loss must be"),
        ({"class_loss_steps": "first"}, "class_loss_steps must be"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"n_epochs": 0}, "n_epochs must be"),
        ({"n_minibatches": 0}, "n_minibatches must be"),
        ({"clip_range": 0}, "clip_range must lie between"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


def test_environments_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r'a Dict observation with "glimpse" .* is needed, got Box'):
        RAM("RAMPolicy", "CartPole-v1")
