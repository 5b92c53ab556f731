"""Train, evaluate and look at a recurrent attention agent.

python train_agent.py                                   # trains on GlimpseMNIST-v0 with tuned settings
python train_agent.py --env GlimpseCatch-v0             # plays Catch, learning from the final reward alone
python train_agent.py --progress --seed 3 -n 7000000    # that many steps of the environment
python train_agent.py --resume                          # goes on with the newest unfinished run
python train_agent.py -i logs/ram/GlimpseMNIST-v0_1/best_model.zip --eval-only
python train_agent.py -i logs/ram/GlimpseCatch-v0_1/best_model.zip --env GlimpseCatch-v0 --record catch.gif
python train_agent.py --env-kwargs num_glimpses:4 -params learning_rate:lin_0.002
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecMonitor

from agents import RAM, make_vec_env
from agents.callbacks import ResumeCallback, Stopwatch, TimedEvalCallback, TimedSchedule, TimeLimitCallback, resume
from agents.evaluation import GAME_EVALUATIONS, has_images, make_split, split_options, task_of, test, watch
from agents.figures import plot_glimpses, plot_learning_curve
from agents.film import record
from agents.runs import (
    current_commit,
    new_run,
    parse_schedule,
    read_hyperparams,
    unfinished_run,
    write_result,
    write_yaml,
)
from ram_envs.pairs import parse_pairs

HERE = Path(__file__).resolve().parent
ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {"ram": RAM, "ppo": PPO}
DEFAULT_THREADS = 1
RUN_SETTINGS = ("n_timesteps", "n_envs", "matmul_precision")  # The last is torch's: "highest", "high" or "medium".
MANY_TIMESTEPS = 10**12  # With --minutes the clock alone ends the training.
# Test error in % (of Catch: balls missed) of the paper and of public implementations, with the glimpses that our default has.
PEERS = {
    "GlimpseMNIST-v0": {"the paper (7 glimpses)": 1.07, "the most used PyTorch implementation (claimed)": 1.21},
    "GlimpseCatch-v0": {"the paper (20 million frames)": 15.0, "the best public implementation (claimed)": 11.0},
}


@dataclass
class Run:
    """One training run: its folder, what was asked and the settings that it runs with."""

    folder: Path
    options: dict[str, Any]  # Of the command line.
    settings: dict[str, Any]  # Of the algorithm, and `RUN_SETTINGS`.
    env_kwargs: dict[str, Any]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the command line and return what was measured."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.num_threads)
    algorithm = ALGORITHMS[options.algo]
    if options.eval_only or options.record:
        model = algorithm.load(options.trained_agent, device=options.device)
        return show(model, options)
    logs = Path(options.log_folder)
    run = read_run(unfinished_run(logs, options.algo, options.env)) if options.resume else begin_run(options)
    torch.set_float32_matmul_precision(run.settings["matmul_precision"])
    print(f"Run folder: {run.folder}")
    result = train(algorithm, run, options)
    report(result, run.folder)
    return result


def show(model: BaseAlgorithm, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate or film a trained model."""
    result: dict[str, Any] = {"env": options.env}
    env_kwargs = parse_pairs(options.env_kwargs)
    if options.eval_only:
        result |= test(model, options.env, env_kwargs)
    if options.record:
        result["frames"] = record(
            model, options.env, Path(options.record), seed=options.seed, **split_options(options.env, "test", env_kwargs)
        )
    print(json.dumps(result, indent=2))
    return result


def begin_run(options: argparse.Namespace) -> Run:
    """Gather the settings of a new run and write them into its folder."""
    hyperparams = HERE / "hyperparams" / f"{options.algo}.yml"
    settings = {**read_hyperparams(hyperparams, options.env), **parse_pairs(options.params)}
    env_kwargs = {**settings.pop("env_kwargs", {}), **parse_pairs(options.env_kwargs)}
    settings["n_timesteps"] = options.n_timesteps or settings.get("n_timesteps", 1_000_000)
    settings["n_envs"] = options.n_envs or settings.get("n_envs", 128)
    settings.setdefault("matmul_precision", "highest")
    folder = new_run(Path(options.log_folder), options.algo, options.env)
    asked = {name: value for name, value in vars(options).items() if name not in ("resume", "progress")}
    write_yaml(folder / "args.yml", {"options": asked, "settings": settings, "env_kwargs": env_kwargs})
    return Run(folder, asked, settings, env_kwargs)


def read_run(folder: Path) -> Run:
    """Take up a run as its folder describes it."""
    return Run(folder, **yaml.safe_load((folder / "args.yml").read_text()))


def train(algorithm: type[OnPolicyAlgorithm], run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """Learn, keep the model that is best on validation, test that one; returns what result.json holds."""
    asked, checkpoint = run.options, run.folder / "checkpoint.pkl"
    n_timesteps, n_envs = run.settings["n_timesteps"], run.settings["n_envs"]
    eval_freq = asked["eval_freq"] or max(n_timesteps // 12, 1)
    order = {"image_order": "shuffled"} if has_images(asked["env"]) else {}
    env = make_vec_env(asked["env"], n_envs, **{**order, **run.env_kwargs})
    validation, episodes, eval_seed = make_split(asked["env"], "validation", run.env_kwargs)
    evaluation = TimedEvalCallback(
        Stopwatch(),
        validation,
        eval_seed=eval_seed,
        n_eval_episodes=episodes,
        eval_freq=max(eval_freq // n_envs, 1),
        log_path=str(run.folder),
        best_model_save_path=str(run.folder),
        verbose=0,
    )
    callbacks: list[BaseCallback] = [evaluation, ResumeCallback(checkpoint, eval_freq, evaluation)]
    if asked["minutes"]:
        callbacks.append(TimeLimitCallback(evaluation.stopwatch, 60 * asked["minutes"], options.progress))
        n_timesteps = MANY_TIMESTEPS
    if checkpoint.exists():
        model = resume(algorithm, checkpoint, env, evaluation, device=options.device)
        print(f"Going on after {model.num_timesteps} steps")
    else:
        model = make_model(algorithm, run, env, options.device)
    model.learn(
        n_timesteps - model.num_timesteps,
        callbacks,
        reset_num_timesteps=model.num_timesteps == 0,
        progress_bar=options.progress and not asked["minutes"],
    )
    model.save(run.folder / "model.zip")
    best = algorithm.load(run.folder / "best_model.zip", device=options.device)
    result = {**describe(run, model, evaluation), **test(best, asked["env"], run.env_kwargs)}
    write_result(run.folder / "result.json", result)
    draw(run, best)
    checkpoint.unlink(missing_ok=True)
    return result


def make_model(algorithm: type[OnPolicyAlgorithm], run: Run, env: VecMonitor, device: str) -> BaseAlgorithm:
    """A new model with the run's settings, or the one that -i names."""
    if run.options["trained_agent"]:
        model = algorithm.load(run.options["trained_agent"], env=env, device=device)
        model.num_timesteps = 0
        return model
    settings = {name: parse_schedule(value) for name, value in run.settings.items() if name not in RUN_SETTINGS}
    settings.setdefault("learning_rate", parse_schedule("lin_0.001"))
    if run.options["minutes"]:
        settings["learning_rate"] = TimedSchedule(FloatSchedule(settings["learning_rate"]))
    return algorithm(
        settings.pop("policy", "RAMPolicy" if algorithm is RAM else "MultiInputPolicy"),
        env,
        seed=run.options["seed"],
        device=device,
        tensorboard_log=run.options["tensorboard_log"],
        **settings,
    )


def describe(run: Run, model: BaseAlgorithm, evaluation: TimedEvalCallback) -> dict[str, Any]:
    """What result.json says of the training."""
    wall, cpu = evaluation.stopwatch.read()
    curve = np.load(run.folder / "evaluations.npz")
    episodes = model.num_timesteps / curve["ep_lengths"].mean()
    result = {name: run.options[name] for name in ("env", "algo", "seed")}
    if has_images(run.options["env"]):
        images = task_of(model.get_env()).images
        result |= {"dataset": images.name, "dataset_size": len(images.labels)}
    return {
        **result,
        "n_timesteps": model.num_timesteps,
        "episodes_per_second": round(float(episodes) / wall, 1),
        "frames_per_second": round(model.num_timesteps / wall, 1),
        "train_seconds": round(wall, 1),
        "train_cpu_seconds": round(cpu, 1),
        "validation_error": round(100 * (1 - curve["successes"].mean(axis=1)[curve["results"].mean(axis=1).argmax()]), 2),
        "command": run.options["command"],
        "commit": run.options["commit"],
        "machine": f"{os.cpu_count()} cores, {torch.get_num_threads()} torch thread(s), {model.device}",
        "torch": torch.__version__,
        "matmul_precision": run.settings["matmul_precision"],
    }


def draw(run: Run, model: BaseAlgorithm) -> None:
    """The learning curve, and eight test images as the model looks at them, or a film of its games."""
    env_id, curve = run.options["env"], np.load(run.folder / "evaluations.npz")
    episodes = curve["timesteps"] / curve["ep_lengths"].mean()
    error = 100 * (1 - curve["successes"].mean(axis=1))
    title = f"{run.options['algo']} on {env_id}, seed {run.options['seed']}"
    plot_learning_curve(episodes, curve["cpu_seconds"], error, run.folder / "learning_curve.png", title)
    if has_images(env_id):
        plot_glimpses(watch(model, env_id, run.env_kwargs), run.folder / "glimpses.png")
    else:
        record(model, env_id, run.folder / "games.gif", seed=GAME_EVALUATIONS["test"][1], **run.env_kwargs)


def report(result: dict[str, Any], folder: Path) -> None:
    """Say what came of it."""
    what = "images" if "dataset" in result else "episodes"
    print(f"\nTest error: {result['test_error']:.2f} % over {result['test_episodes']} {what}")
    for name, error in PEERS.get(result["env"], {}).items():
        print(f"  beside it, {name}: {error:.2f} %")
    if result.get("dataset") == "mnist-5k":
        print(f"  (which saw all of MNIST; this run had the {result['dataset_size']} training images of {result['dataset']})")
    print(f"Trained for {result['train_seconds']:.0f} s, {result['frames_per_second']:.0f} steps/s")
    for name in ("result.json", "learning_curve.png", "glimpses.png", "games.gif"):
        if (folder / name).exists():
            print(f"  {folder / name}")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; the words are rl_zoo3's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--algo", default="ram", choices=tuple(ALGORITHMS), help="the algorithm")
    add("--env", default="GlimpseMNIST-v0", help="a registered environment's id")
    add("-n", "--n-timesteps", type=int, help="steps of the environment to learn from; default: the tuned number")
    add("--minutes", type=float, help="learn for so long instead (evaluations not counted), whatever the steps come to")
    add("--seed", type=int, default=0, help="seed of the networks, the samples and the environments")
    add("--n-envs", type=int, help="environments side by side, the batch; default: the tuned number")
    add("--eval-freq", type=int, help="steps from one evaluation on validation to the next; default: a twelfth of all")
    add("-P", "--progress", action="store_true", help="show a progress bar")
    add("-f", "--log-folder", default="logs", help="where run folders are made (default: logs)")
    add("-tb", "--tensorboard-log", help="a folder for TensorBoard's logs")
    add("-params", "--params", nargs="+", default=[], metavar="NAME:VALUE", help="settings of the algorithm to change")
    add("--env-kwargs", nargs="+", default=[], metavar="NAME:VALUE", help="options of the environment to change")
    add("-i", "--trained-agent", help="a saved model (.zip) to begin from, or to evaluate with --eval-only")
    add("--eval-only", action="store_true", help="only measure the test error of the model that -i names")
    add("--record", metavar="PATH", help="film the model that -i names: a .gif or .mp4 of a few test episodes")
    add("--resume", action="store_true", help="go on with the newest unfinished run of this algorithm and environment")
    add("--device", default="auto", help="cpu, cuda or auto (default)")
    add("--num-threads", type=int, default=DEFAULT_THREADS, help=f"threads of torch (default: {DEFAULT_THREADS})")
    options = parser.parse_args(arguments)
    if (options.eval_only or options.record) and not options.trained_agent:
        parser.error("--eval-only and --record need -i/--trained-agent PATH")
    try:
        parse_pairs([*options.params, *options.env_kwargs])
    except ValueError as error:
        parser.error(str(error))
    options.command = shlex.join(["python", "train_agent.py", *(sys.argv[1:] if arguments is None else arguments)])
    options.commit = current_commit(HERE)
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command with --resume goes on from the last checkpoint.")
