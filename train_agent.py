"""Train, evaluate and look at agents.

python train_agent.py                                   # the recurrent attention agent on GlimpseMNIST-v0, tuned hyperparameters
python train_agent.py --env GlimpseCatch-v0             # plays Catch, learning from the final reward alone
python train_agent.py --progress --seed 3 -n 7000000    # that many steps of the environment
python train_agent.py --algo ppo --env GlimpseCatch-v0  # any other algorithm; --help names them
python train_agent.py --resume                          # resumes the newest unfinished run
python train_agent.py -i logs/ram/GlimpseMNIST-v0_1/best_model.zip --eval-only
python train_agent.py -i logs/ram/GlimpseCatch-v0_1/best_model.zip --env GlimpseCatch-v0 --record catch.gif
python train_agent.py -i pretrained --env ID --eval-only  # a trained agent that comes with the package, see docs/pretrained.md
python train_agent.py --env-kwargs num_glimpses:4 -params learning_rate:lin_0.002 policy_kwargs.core:lstm
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from agents import algorithm_names, make_vec_env, pretrained_hyperparams, pretrained_ids
from agents.pretrained import PRETRAINED
from agents.training.callbacks import CLOCKS
from agents.training.config import RunConfig, read_hyperparams
from agents.training.evaluation import evaluate_on_test, evaluation_of
from agents.training.figures import record
from agents.training.run import load_agent, new_folder, run, unfinished_run
from ram_envs import parse_pairs

# Test error in % (of Catch: balls missed) of the paper and of public implementations, with the glimpses that our default has.
PEERS = {
    "GlimpseMNIST-v0": {"the paper (7 glimpses)": 1.07, "the most used PyTorch implementation (claimed)": 1.21},
    "GlimpseCatch-v0": {"the paper (20 million frames)": 15.0, "the best public implementation (claimed)": 11.0},
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command line and return what was measured."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        config = read_config(options, arguments)
    except (ValueError, ModuleNotFoundError) as error:
        parser.error(str(error))
    if options.eval_only or options.record:
        return show(config, options)
    if not config.folder:
        config = replace(config, folder=new_folder(Path(options.log_folder), config.algo, config.env))
    print(f"Run folder: {config.folder}")
    result = run(config)
    report(result, Path(config.folder))
    return result


def parse_config(arguments: Sequence[str]) -> RunConfig:
    """What a command line asks for.

    Raises:
        ValueError: something is out of range or unknown.
    """
    return read_config(make_parser().parse_args(arguments), arguments)


def read_config(options: argparse.Namespace, arguments: Sequence[str] | None) -> RunConfig:
    """What the options ask for; the folder is the one they name, that of an unfinished run, or "" for a new one.

    Raises:
        ValueError: something is out of range, unknown, or without its other half.
        ModuleNotFoundError: a module of --imports is missing.
        FileNotFoundError: there is no unfinished run to resume.
    """
    import_modules(options.imports)
    if options.resume:
        config = unfinished_run(Path(options.log_folder), options.algo, options.env)
        return replace(config, device=options.device, num_threads=options.num_threads, progress=options.progress)
    if (options.eval_only or options.record) and not options.trained_agent:
        raise ValueError("--eval-only and --record need -i/--trained-agent")
    given = {field.name: getattr(options, field.name) for field in fields(RunConfig) if field.name in options}
    given |= {"hyperparams": parse_pairs(options.hyperparams), "env_kwargs": parse_pairs(options.env_kwargs)}
    command = shlex.join(["python", "train_agent.py", *(sys.argv[1:] if arguments is None else arguments)])
    config = RunConfig(**given, command=command)
    if config.trained_agent == PRETRAINED:
        pretrained_hyperparams(config.env)  # Raises where there is none, before a folder is made.
    return config


def show(config: RunConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate or film a trained model."""
    torch.set_num_threads(config.num_threads)
    hyperparams, env_kwargs = read_hyperparams(config)
    torch.set_float32_matmul_precision(hyperparams["matmul_precision"])
    frame_stack = hyperparams.get("frame_stack", 1)
    env = make_vec_env(config.env, frame_stack=frame_stack, **env_kwargs)
    model = load_agent(config, env)
    result: dict[str, Any] = {"env": config.env}
    if options.eval_only:
        result |= evaluate_on_test(model, config.env, env_kwargs, frame_stack)
    if options.record:
        shown = {**env_kwargs, **evaluation_of(env, "test").env_kwargs}
        result["frames"] = record(model, config.env, Path(options.record), seed=config.seed, frame_stack=frame_stack, **shown)
    print(json.dumps(result, indent=2))
    return result


def report(result: dict[str, Any], folder: Path) -> None:
    """Print what the run gave."""
    print(f"\nValidation error: {result['validation_error']:.2f} %")
    if "test_error" in result:
        what = "images" if "dataset" in result else "episodes"
        print(f"Test error: {result['test_error']:.2f} % over {result['test_episodes']} {what}")
        for name, error in PEERS.get(result["env"], {}).items():
            print(f"  beside it, {name}: {error:.2f} %")
        if result.get("dataset") == "mnist-5k":
            print(f"  (which saw all of MNIST; this run had the {result['dataset_size']} training images of mnist-5k)")
    print(f"Trained for {result['train_seconds']:.0f} s, {result['frames_per_second']:.0f} steps/s")
    for name in ("result.json", "learning_curve.png", "glimpses.png", "games.gif"):
        if (folder / name).exists():
            print(f"  {folder / name}")


def make_parser() -> argparse.ArgumentParser:
    """The command line; the words are rl_zoo3's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--algo", default="ram", help=f"the algorithm: {', '.join(algorithm_names())}, or one that --imports registers")
    add("--env", default="GlimpseMNIST-v0", help="a registered environment's id")
    add("--preset", help="hyperparameters of another purpose: paper (Mnih et al. 2014) or best; default: the everyday ones")
    add("-n", "--n-timesteps", type=int, help="steps of the environment to learn from; default: the tuned number")
    add("--minutes", type=float, help="the time to learn for instead (evaluations not counted)")
    add("--clock", default="wall", choices=CLOCKS, help="what counts --minutes: the wall clock, or this process's CPU time")
    add("--seed", type=int, default=0, help="seed of the networks, the samples and the environments")
    add("--n-envs", type=int, help="environments side by side, the batch; default: the tuned number")
    add("--evaluations", type=int, default=12, help="evaluations on validation, evenly spread (default: 12)")
    add("--eval-freq", type=int, help="steps from one evaluation on validation to the next instead")
    add("--no-test", dest="test", action="store_false", help="leave the test split alone, while you still choose")
    add("-P", "--progress", action="store_true", help="show a progress bar")
    add("-f", "--log-folder", default="logs", help="where run folders are made (default: logs)")
    add("--folder", default="", help="the run's folder itself; an unfinished run in it is resumed, a finished one is reported")
    add("-tb", "--tensorboard-log", help="a folder for TensorBoard's logs")
    add("-params", "--hyperparams", nargs="+", default=[], metavar="NAME:VALUE", help="hyperparameters to change")
    add("--env-kwargs", nargs="+", default=[], metavar="NAME:VALUE", help="options of the environment to change")
    add("-i", "--trained-agent", help=TRAINED_AGENTS)
    add("--eval-only", action="store_true", help="only measure the test error of the model that -i names")
    add("--record", metavar="PATH", help="film the model that -i names: a .gif or .mp4 of a few test episodes")
    add("--resume", action="store_true", help="resume the newest unfinished run of this algorithm and environment")
    add("--imports", nargs="+", default=[], metavar="MODULE", help="modules to import first: they register what they like")
    add("--device", default="auto", help="cpu, cuda or auto (default)")
    add("--num-threads", type=int, default=1, help="threads of torch (default: 1)")
    return parser


TRAINED_AGENTS = (
    "a saved model (.zip) to begin from or to show, or pretrained: the package's own for --env (there are: "
    f"{', '.join(pretrained_ids()) or 'none'})"
)


def import_modules(names: Sequence[str]) -> None:
    """Import the user's modules, from the current folder too."""
    if names:
        sys.path.insert(0, str(Path.cwd()))
    for name in names:
        importlib.import_module(name)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command with --resume resumes from the last checkpoint.")
