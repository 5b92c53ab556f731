"""The test suites of Gymnasium and of Stable-Baselines3, run with our environments and algorithms in place of theirs.

git clone https://github.com/Farama-Foundation/Gymnasium
python tests/peers.py Gymnasium tests/envs tests/wrappers tests/vector
git clone https://github.com/DLR-RM/stable-baselines3
python tests/peers.py stable-baselines3
python tests/peers.py --ram stable-baselines3

EpisodeA2C and EpisodePPO stand in for Stable-Baselines3's A2C and PPO; with `--ram`, RAM does, and GlimpseCatch-v0 for the
environments that its suite knows by name. What fails, and why that is so, stands in docs/reliability.md. Further arguments go
to pytest.
"""

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym

HERE = Path(__file__).resolve().parent
WITH_RAM = "--ram"
IN_PLACE_OF = {"CartPole-v1": "CatchDiscrete-v0", "Pendulum-v1": "GlimpseCatchBox-v0"}


def pytest_configure(config):
    """Put ours in place of theirs, before pytest imports their tests."""
    ram_envs = importlib.import_module("ram_envs")
    with_ram = bool(os.environ.get("PEERS_WITH_RAM"))
    for theirs, ours in IN_PLACE_OF.items():
        spec = copy.deepcopy(gym.spec("GlimpseCatch-v0" if with_ram else ours))
        gym.envs.registry[theirs] = spec
        spec.id, spec.name = theirs, theirs.removesuffix("-v1")
        spec.version = 1
    if Path("tests/envs/utils.py").exists():
        put_environments(ram_envs.ENVIRONMENTS)
    else:
        put_algorithms(with_ram)


def put_environments(names):
    """All environments that Gymnasium's suite goes through are ours."""
    sys.path.append(os.getcwd())
    found = importlib.import_module("tests.envs.utils")
    ids = [name for name in names if "Fashion" not in name]  # Whose images may not be here.
    found.all_testing_env_specs[:] = found.gym_testing_env_specs[:] = [gym.spec(name) for name in ids]
    found.all_testing_initialised_envs[:] = [
        spec.make(disable_env_checker=True).unwrapped for spec in found.all_testing_env_specs
    ]
    found.mujoco_testing_env_specs.clear()


def put_algorithms(with_ram):
    """The names A2C and PPO of Stable-Baselines3 are ours."""
    sb3, ours = (importlib.import_module(name) for name in ("stable_baselines3", "ram_envs.agents"))
    if with_ram:
        sb3.A2C, sb3.PPO = (named_like_theirs(ours.RAM, class_loss="reinforce", n_epochs=n) for n in (1, 4))
    else:
        sb3.A2C, sb3.PPO = named_like_theirs(ours.EpisodeA2C), named_like_theirs(ours.EpisodePPO)


def named_like_theirs(algorithm, **defaults):
    """The algorithm, told by Stable-Baselines3's names what has another one here or none."""
    cnn = importlib.import_module("stable_baselines3.common.torch_layers").NatureCNN

    class Policy(next(iter(algorithm.policy_aliases.values()))):
        def __init__(self, *args, net_arch=None, **options):
            if net_arch and isinstance(net_arch, list):  # One layer, the core, is what our policies have.
                options["core_size"] = net_arch[-1]
            super().__init__(*args, **options)

    class CnnPolicy(Policy):
        def __init__(self, *args, **options):
            super().__init__(*args, **{"features_extractor_class": cnn, **options})

    class Ours(algorithm):
        policy_aliases: ClassVar[dict[str, Any]] = {"MlpPolicy": Policy, "CnnPolicy": CnnPolicy, "MultiInputPolicy": Policy}

        def __init__(self, policy, env, batch_size=None, **hyperparams):
            policy = self.policy_aliases.get(policy, policy)  # SB3 refuses the name "MlpPolicy" where observations are dicts.
            super().__init__(policy, env, **{**defaults, **hyperparams})

    return Ours


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != WITH_RAM]
    environ = {**os.environ, "PEERS_WITH_RAM": "1" if WITH_RAM in sys.argv else ""}
    environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    # -P: what is tested is the installed package, not the clone's.
    command = [sys.executable, "-P", "-m", "pytest", "-p", "peers", "-p", "no:cacheprovider", *arguments[1:]]
    sys.exit(subprocess.run(command, cwd=arguments[0], env=environ).returncode)
