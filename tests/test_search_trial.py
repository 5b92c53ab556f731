import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from benchmarks.search_space import Choices, Range
from benchmarks.search_trial import trial_config

ASKED = {"algo": "ram", "env": "GlimpseMNIST-v0", "seed": 0}


def test_values_go_where_a_trial_wants_them():
    asked = {**ASKED, "n_envs": None, "params": {"gamma": 1}, "env_kwargs": {"dataset": "mnist-5k"}, "space": {}}
    space = {name: Choices(choices=(1,)) for name in ("n_envs", "env_kwargs.num_glimpses", "policy_kwargs.core")}
    space["learning_rate"] = Range(low=0.0, high=1.0, schedule="lin")
    values = {"n_envs": 64, "env_kwargs.num_glimpses": 4, "policy_kwargs.core": "lstm", "learning_rate": 0.25}
    assert trial_config(asked, space, values) == {
        **ASKED,
        "n_envs": 64,
        "params": {"gamma": 1, "policy_kwargs.core": "lstm", "learning_rate": "lin_0.25"},
        "env_kwargs": {"dataset": "mnist-5k", "num_glimpses": 4},
        "test": False,
        "figures": False,
        "num_threads": 1,
    }
    assert asked["params"] == {"gamma": 1}
