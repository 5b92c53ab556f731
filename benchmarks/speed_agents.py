"""How fast agents learn, for benchmarks/speed.py: RAM beside its bare network, EpisodePPO beside sb3-contrib's RecurrentPPO.

torch is imported where it is needed, not while environments are timed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ram_envs import env_defaults
from ram_envs.benchmarks.results import Row
from ram_envs.benchmarks.timing import Timed, median, per_second, print_table, take_turns

TRAINED = ("GlimpseMNIST-v0", "GlimpseTranslatedMNIST-v0")
EPISODE_STEPS = {"GlimpseCatch-v0": 23, "GlimpseMNIST-v0": 7}  # Where PPO learns.
DEFAULT_BATCH = 128  # RecurrentPPO's own.
PPO: dict[str, Any] = {"learning_rate": 3e-4, "gamma": 0.99, "gae_lambda": 0.95, "n_epochs": 4, "seed": 0, "device": "cpu"}


def measure_training(options: argparse.Namespace) -> list[Row]:
    """Images per second of RAM.learn, environment included, beside its bare network on ready-made glimpses.

    The bare network is the same policy: forward over all steps, the same losses, backward, the same optimizer step, the same
    batch. It lacks the environment, the sampling of actions, SB3's loop and its logging. On the CPU the process's own time is
    counted, on other devices the wall's. "environment" is the share of the wall's time in which RAM.learn waits for it.
    """
    import torch

    from ram_envs.agents import RAM, make_vec_env

    torch.set_num_threads(1)
    rows = []
    for env_id, num_envs in itertools.product(options.envs, options.num_envs):
        env = make_vec_env(env_id, num_envs)
        model = RAM("RAMPolicy", env, seed=0, device=options.device, learning_rate=1e-4)
        steps, waits = env_defaults(env_id)["num_glimpses"], list[float]()
        work = {"bare": bare_network(model, steps, options.updates), "learn": learner(model, steps * options.updates, waits)}
        clock = time.process_time if options.device == "cpu" else time.perf_counter
        timed = {name: per_second(run, options.updates * num_envs, clock) for name, run in work.items()}
        turns = take_turns(timed, options.rounds)
        row = {"env": env_id, "run": f"training_batch_{num_envs}" + ("" if options.device == "cpu" else f"_{options.device}")}
        speeds = {name: median(own) for name, own in turns.items()}
        shares = {"ratio": median(turns["learn"] / turns["bare"], 3), "environment": median(np.array(waits[1:]), 3)}
        rows.append({**row, "num_envs": num_envs, **speeds, **shares})
    print_table(rows)
    return rows


def learner(model: Any, steps: int, waits: list[float]) -> Callable[[], None]:
    """Runs `RAM.learn` for some steps of each environment; adds the share of the time spent in the environment to `waits`."""
    step_wait, spent = model.env.step_wait, list[float]()

    def timed_step_wait() -> Any:
        start = time.perf_counter()
        result = step_wait()
        spent.append(time.perf_counter() - start)
        return result

    def run() -> None:
        spent.clear()
        start = time.perf_counter()
        model.learn(steps * model.n_envs, reset_num_timesteps=False)
        waits.append(sum(spent) / (time.perf_counter() - start))

    model.env.step_wait = timed_step_wait
    return run


def bare_network(model: Any, steps: int, updates: int) -> Callable[[], None]:
    """Runs some updates of the network alone, each from a batch of episodes of some steps."""
    import torch

    from ram_envs.agents.losses import baseline_loss, classification_loss, location_log_prob, reinforce_loss

    policy, batch = model.policy, model.n_envs
    with torch.device(model.device):
        glimpses = torch.rand(steps, batch, *model.observation_space["glimpse"].shape)  # (T, N, ...)
        locations = torch.rand(steps, batch, 2) * 2 - 1
        labels = torch.randint(10, (steps, batch))
        returns, everywhere = torch.rand(steps, batch), torch.ones(steps, batch)

    def update() -> torch.Tensor:
        state, outputs = policy.initial_state(batch), []
        for glimpse, location in zip(glimpses, locations, strict=True):
            outputs.append(policy({"glimpse": glimpse, "location": location}, state))
            state = outputs[-1].state
        means = torch.stack([output.location_mean for output in outputs])  # (T, N, 2)
        logits = torch.stack([output.logits[0] for output in outputs])  # (T, N, K)
        values = torch.stack([output.value for output in outputs])  # (T, N)
        log_probs = location_log_prob(locations, means, policy.std)
        loss: torch.Tensor = reinforce_loss(log_probs, returns - values, everywhere) * 1e-2
        loss = loss + baseline_loss(values, returns) + classification_loss(logits, labels, everywhere)
        policy.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), model.max_grad_norm)
        policy.optimizer.step()
        return loss

    def run() -> None:
        for _ in range(updates):
            loss = update()
        loss.item()  # Waits for the device.

    return run


def measure_recurrent(options: argparse.Namespace) -> list[Row]:
    """Frames per CPU second of EpisodePPO beside sb3-contrib's RecurrentPPO at equal hyperparameters, environment included.

    Equal are: the native vector environment, the actions (one Box), steps to an update (one episode of each environment), epochs,
    gradient steps to an epoch and so frames to each ("batch"), the glimpse network (128 and 256 units), an LSTM of 256, linear
    heads, float32. RecurrentPPO is there twice: "shared", where actor and critic share its LSTM, is the same network as
    EpisodePPO's and so the same arithmetic; "two_lstms" is its default, where the critic has an LSTM of its own.
    """
    import torch

    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(options.precision)
    rows = []
    for env_id, num_envs in itertools.product(options.envs, options.num_envs):
        for minibatches in splits(env_id, num_envs):
            batch = math.ceil(num_envs * EPISODE_STEPS[env_id] / minibatches)
            turns = take_turns(learners(env_id, num_envs, minibatches, batch, options.frames), options.rounds)
            row = {"env": env_id, "run": f"recurrent_vector_{num_envs}_batch_{batch}", "num_envs": num_envs, "batch": batch}
            speeds = {name: median(own) for name, own in turns.items()}
            ratios = {f"ratio_to_{name}": median(turns["episode_ppo"] / turns[name], 2) for name in ("shared", "two_lstms")}
            rows.append({**row, **speeds, **ratios, "precision": options.precision})
    print_table(rows)
    return rows


def splits(env_id: str, num_envs: int) -> list[int]:
    """Gradient steps to an epoch: 4, and the number that RecurrentPPO's default batch size makes."""
    by_default = math.ceil(num_envs * EPISODE_STEPS[env_id] / DEFAULT_BATCH)
    return [number for number in sorted({4, by_default}) if number <= num_envs]


def learners(env_id: str, num_envs: int, minibatches: int, batch: int, frames: int) -> dict[str, Timed]:
    """EpisodePPO and both forms of RecurrentPPO, which learn from about some frames in a turn."""
    from sb3_contrib import RecurrentPPO

    from ram_envs.agents import EpisodePPO, GlimpseExtractor, make_vec_env

    update = num_envs * EPISODE_STEPS[env_id]  # In frames.
    turn = update * max(1, round(frames / update))

    def timed(algorithm: Any, policy: str, **kwargs: Any) -> Timed:
        model = algorithm(policy, make_vec_env(env_id, num_envs, seed=0), **kwargs, **PPO)
        return per_second(lambda: model.learn(turn, reset_num_timesteps=False), turn)

    theirs = {"n_steps": EPISODE_STEPS[env_id], "batch_size": batch}
    network: dict[str, Any] = {"features_extractor_class": GlimpseExtractor, "lstm_hidden_size": 256, "net_arch": []}
    one_lstm = {**network, "shared_lstm": True, "enable_critic_lstm": False}
    return {
        "episode_ppo": timed(EpisodePPO, "RecurrentPolicy", n_minibatches=minibatches, policy_kwargs={"core": "lstm"}),
        "shared": timed(RecurrentPPO, "MultiInputLstmPolicy", policy_kwargs=one_lstm, **theirs),
        "two_lstms": timed(RecurrentPPO, "MultiInputLstmPolicy", policy_kwargs=network, **theirs),
    }
