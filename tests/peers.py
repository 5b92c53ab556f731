"""The test suites of Gymnasium and of Stable-Baselines3, run with our environments and algorithms in place of theirs.

git clone https://github.com/Farama-Foundation/Gymnasium
python tests/peers.py Gymnasium tests/envs tests/wrappers tests/vector
git clone https://github.com/DLR-RM/stable-baselines3
python tests/peers.py stable-baselines3 tests/test_predict.py tests/test_save_load.py

What fails, and why that is so, stands in docs/reliability.md. Further arguments go to pytest.
"""

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym

HERE = Path(__file__).resolve().parent
IN_PLACE_OF = {"CartPole-v1": "CatchDiscrete-v0", "Pendulum-v1": "GlimpseCatchBox-v0"}


def pytest_configure(config):
    """Put ours in place of theirs, before pytest imports their tests."""
    ram_envs = importlib.import_module("ram_envs")
    sys.path.insert(0, os.getcwd())
    for theirs, ours in IN_PLACE_OF.items():
        spec = copy.deepcopy(gym.spec(ours))
        gym.envs.registry[theirs] = spec
        spec.id, spec.name = theirs, theirs.removesuffix("-v1")
        spec.version = 1
    if Path("tests/envs/utils.py").exists():
        found = importlib.import_module("tests.envs.utils")
        ids = [name for name in ram_envs.ENVIRONMENTS if "Fashion" not in name]  # Whose images may not be here.
        found.all_testing_env_specs[:] = found.gym_testing_env_specs[:] = [gym.spec(name) for name in ids]
        found.all_testing_initialised_envs[:] = [
            spec.make(disable_env_checker=True).unwrapped for spec in found.all_testing_env_specs
        ]
        found.mujoco_testing_env_specs.clear()


if __name__ == "__main__":
    folder, *arguments = sys.argv[1:]
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "peers", "-p", "no:cacheprovider", *arguments]
    sys.exit(subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}).returncode)
