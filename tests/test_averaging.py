import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_ram import T, make_model, vec_env, weights

from agents import RAM, EpisodePPO
from agents.averaging import start_average

SMALL = {"hidden_size": 8, "core_size": 16}


def average_of(values, share):
    """What one weight's average is after it had these values."""
    network = torch.nn.Linear(1, 1, bias=False)
    average = start_average(network, share)
    for value in values:
        torch.nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    return average.module.weight.item()


def test_a_share_of_one_is_the_plain_mean():
    assert average_of([1.0, 2.0, 6.0], share=1) == pytest.approx(3.0)


def test_newer_weights_count_for_more():
    # e = 2: the shares of the second and the third are 2/3 and 2/4.
    assert average_of([1.0, 4.0, 8.0], share=0.5) == pytest.approx(((1 + 2 * 4) / 3 + 8) / 2)


def test_the_window_grows_with_the_updates():
    for number in (1_000, 4_000):  # The mean age of what counts is a tenth of all, and a little less since the window grew.
        assert average_of(range(number), share=0.1) == pytest.approx(number * (1 - 0.1 / 1.1), rel=0.01)


def test_nothing_of_the_average_is_learned():
    average = start_average(torch.nn.Linear(2, 2), 0.5)
    assert not any(part.requires_grad for part in average.parameters())
    with pytest.raises(ValueError, match="share must be above 0 and at most 1, got 0"):
        start_average(torch.nn.Linear(2, 2), 0)


def test_learning_is_the_same_and_predict_acts_with_the_average():
    plain = make_model().learn(3 * 16 * T)
    averaged, history = make_model(weight_average=1.0), []

    def note(batch, outputs, update=averaged._update):
        logs = update(batch, outputs)
        history.append(weights(averaged))
        return logs

    averaged._update = note
    averaged.learn(3 * 16 * T)
    assert len(history) == 3
    for name, learned in weights(plain).items():
        torch.testing.assert_close(history[-1][name], learned, rtol=0, atol=0)
        mean = torch.stack([before[name] for before in history]).mean(0)
        torch.testing.assert_close(averaged.acting_policy.get_parameter(name), mean)
    assert plain.acting_policy is plain.policy
    obs = vec_env().reset()
    acted = averaged.predict(obs, deterministic=True)[0]
    np.testing.assert_array_equal(acted, averaged.acting_policy.predict(obs, deterministic=True)[0])
    assert (acted != averaged.policy.predict(obs, deterministic=True)[0]).any()


@pytest.mark.parametrize(
    ("algorithm", "kwargs"),
    [(RAM, {"policy_kwargs": SMALL}), (EpisodePPO, {"policy_kwargs": {"core_size": 8}, "n_epochs": 2})],
)
def test_it_is_saved_and_loaded(algorithm, kwargs, tmp_path):
    names = {RAM: "RAMPolicy", EpisodePPO: "RecurrentPolicy"}
    model = algorithm(names[algorithm], vec_env(), seed=0, device="cpu", weight_average=0.3, **kwargs)
    model.learn(3 * 16 * T)
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", env=vec_env(), device="cpu")
    obs = vec_env().reset()
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    for name, part in model.average.state_dict().items():
        assert torch.equal(loaded.average.state_dict()[name], part), name
    updates = loaded.average.n_averaged.item()
    loaded.learn(16 * T, reset_num_timesteps=False)
    assert loaded.average.n_averaged > updates > 0


def test_samples_are_as_wide_as_while_learning():
    model = make_model(weight_average=0.5, final_location_std=0.02, policy_kwargs={**SMALL, "location_std": 0.2})
    model.learn(4 * 16 * T)
    assert model.acting_policy.std_now == model.policy.std_now < 0.2


def test_shares_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"weight_average must lie between 0 and 1, got 1.5"):
        make_model(weight_average=1.5)
