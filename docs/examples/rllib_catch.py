"""Ray RLlib's PPO (new API stack, PyTorch) plays Catch through the retina, with plain Dict observations and Dict actions.

pip install -e ".[train,ray]"  # in a virtual environment of its own: Ray needs Gymnasium 1.2.2
python docs/examples/rllib_catch.py
python docs/examples/rllib_catch.py --num-env-runners 4 --iterations 500 --stop-reward 0.9
python docs/examples/rllib_catch.py --size 6 --iterations 40  # a smaller game, learned in a minute
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

NUM_ENVS = 256  # Over all env runners; each plays one game in an iteration.
GAZE_STD = 0.1  # Of the locations' Gaussian when training begins; RLlib's own 1 scatters the gaze over the whole screen.


def make_config(size: int, num_env_runners: int, seed: int) -> PPOConfig:
    """PPO with an LSTM over whole games of `size` x `size` pixels."""
    envs_per_runner = max(NUM_ENVS // max(num_env_runners, 1), 1)
    steps = envs_per_runner * max(num_env_runners, 1) * (size - 1)  # Of one game in each environment.
    model = DefaultModelConfig(fcnet_hiddens=[128], fcnet_activation="relu", use_lstm=True, lstm_cell_size=128, max_seq_len=size)
    return (
        PPOConfig()
        .environment("ram_envs:GlimpseCatch-v0", env_config={"size": size})  # Each process imports ram_envs itself.
        .env_runners(
            num_env_runners=num_env_runners,
            num_envs_per_env_runner=envs_per_runner,
            gym_env_vectorize_mode="vector_entry_point",  # Our native batch.
            batch_mode="complete_episodes",
            sample_timeout_s=600,  # After a minute RLlib continues without samples; a busy machine may take longer to begin.
            env_to_module_connector=lambda env, spaces, device: [FlattenObservations(), MeanStdFilter()],
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=DictActionModule, model_config=model))
        .training(
            train_batch_size_per_learner=steps,
            minibatch_size=steps // 4,
            num_epochs=4,
            lr=1e-3,
            gamma=0.97,
            lambda_=0.95,
            clip_param=0.2,
            entropy_coeff=0.003,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .reporting(metrics_num_episodes_for_smoothing=1000)
        .debugging(seed=seed)
    )


class DictActionModule(DefaultPPOTorchRLModule):
    """RLlib's own network; it looks at the middle of the screen at first, and draws Dict actions with an LSTM too."""

    def setup(self) -> None:
        """Build it; its last layer gives the location's mean, its deviation's logarithm, (2,) each, and the move's logits."""
        super().setup()
        last = [layer for layer in self.pi.modules() if isinstance(layer, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.weight *= 0.1
            last.bias[:] = 0
            last.bias[2:4] = math.log(GAZE_STD)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        # With an LSTM there is an axis of time, here of length 1, and RLlib (2.60) takes it for the Discrete's own when it works
        # out the log-probability of a Dict. So the actions are drawn here, without that axis.
        output = self._forward(batch)
        policy = self.get_exploration_action_dist_cls().from_logits(output[Columns.ACTION_DIST_INPUTS].squeeze(1))
        actions = policy.sample()
        output[Columns.ACTIONS] = {name: part.unsqueeze(1) for name, part in actions.items()}
        output[Columns.ACTION_LOGP] = policy.logp(actions).unsqueeze(1)
        return output


def main(arguments: list[str] | None = None) -> list[float]:
    """Train, and return the share of balls caught after each iteration, in the last 1,000 games."""
    options = parse_arguments(arguments)
    ray.init(include_dashboard=False)
    algo = make_config(options.size, options.num_env_runners, options.seed).build_algo()
    caught: list[float] = []
    while len(caught) < options.iterations and (not caught or caught[-1] < options.stop_reward):
        played = algo.train()["env_runners"]
        caught.append(float(played["episode_return_mean"]))
        print(f"{played['num_env_steps_sampled_lifetime']:9.0f} steps: {100 * caught[-1]:.1f} % of balls caught", flush=True)
    algo.stop()
    ray.shutdown()
    return caught


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=150, help="iterations of one game in each environment")
    parser.add_argument("--stop-reward", type=float, default=1.0, help="stop when this share of balls is caught")
    parser.add_argument("--num-env-runners", type=int, default=0, help="processes that play; 0: the trainer's own")
    parser.add_argument("--size", type=int, default=24, help="pixels to a side of the screen")
    parser.add_argument("--seed", type=int, default=0, help="of the network, the actions and the environments")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
