"""Train, evaluate and look at agents.

python train_agent.py                                   # the recurrent attention agent on GlimpseMNIST-v0, tuned settings
python train_agent.py --env GlimpseCatch-v0             # plays Catch, learning from the final reward alone
python train_agent.py --progress --seed 3 -n 7000000    # that many steps of the environment
python train_agent.py --algo ppo --env GlimpseCatch-v0  # any other algorithm; --help names them
python train_agent.py --resume                          # goes on with the newest unfinished run
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
from pathlib import Path
from typing import Any

import torch
import yaml

import ram_envs  # noqa: F401 (registers the environments)
from agents import algorithm_names, get_algorithm, make_vec_env
from agents.callbacks import CLOCKS
from agents.evaluation import split_options, test
from agents.film import record
from agents.pretrained import PRETRAINED, pretrained_ids
from agents.runs import new_run, unfinished_run
from agents.training import load_agent, run_trial
from agents.trial import Trial, read_options, read_settings
from ram_envs.pairs import parse_pairs

# Test error in % (of Catch: balls missed) of the paper and of public implementations, with the glimpses that our default has.
PEERS = {
    "GlimpseMNIST-v0": {"the paper (7 glimpses)": 1.07, "the most used PyTorch implementation (claimed)": 1.21},
    "GlimpseCatch-v0": {"the paper (20 million frames)": 15.0, "the best public implementation (claimed)": 11.0},
}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the command line and return what was measured."""
    options = parse_arguments(arguments)
    config = read_config(options, arguments)
    if options.eval_only or options.record:
        return show(config, options)
    print(f"Run folder: {config['folder']}")
    result = run_trial(config)
    report(result, Path(config["folder"]))
    return result


def read_config(options: argparse.Namespace, arguments: list[str] | None) -> dict[str, Any]:
    """The trial that the command line asks for, in a new folder, the one it names, or that of an unfinished run."""
    logs = Path(options.log_folder)
    here = {"device": options.device, "num_threads": options.num_threads, "progress": options.progress}
    if options.resume:
        folder = unfinished_run(logs, options.algo, options.env)
        return {**yaml.safe_load((folder / "args.yml").read_text())["options"], "folder": folder, **here}
    config = {name: value for name, value in vars(options).items() if name in Trial.__dataclass_fields__}
    config["params"], config["env_kwargs"] = parse_pairs(options.params), parse_pairs(options.env_kwargs)
    config["command"] = shlex.join(["python", "train_agent.py", *(sys.argv[1:] if arguments is None else arguments)])
    if not (options.folder or options.eval_only or options.record):
        config["folder"] = new_run(logs, options.algo, options.env)
    return config


def show(config: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate or film a trained model."""
    torch.set_num_threads(options.num_threads)
    trial = Trial(**{**config, "folder": ""})
    settings, env_kwargs = read_options(trial)
    torch.set_float32_matmul_precision(settings["matmul_precision"])
    env = make_vec_env(trial.env, **env_kwargs)
    model = load_agent(trial, env)
    result: dict[str, Any] = {"env": trial.env}
    if options.eval_only:
        result |= test(model, trial.env, env_kwargs)
    if options.record:
        shown = split_options(trial.env, "test", env_kwargs)
        result["frames"] = record(model, trial.env, Path(options.record), seed=trial.seed, **shown)
    print(json.dumps(result, indent=2))
    return result


def report(result: dict[str, Any], folder: Path) -> None:
    """Say what came of it."""
    print(f"\nValidation error: {result['validation_error']:.2f} %")
    if "test_error" in result:
        report_test(result)
    print(f"Trained for {result['train_seconds']:.0f} s, {result['frames_per_second']:.0f} steps/s")
    for name in ("result.json", "learning_curve.png", "glimpses.png", "games.gif"):
        if (folder / name).exists():
            print(f"  {folder / name}")


def report_test(result: dict[str, Any]) -> None:
    """Say how it did on the test split, and others."""
    what = "images" if "dataset" in result else "episodes"
    print(f"Test error: {result['test_error']:.2f} % over {result['test_episodes']} {what}")
    for name, error in PEERS.get(result["env"], {}).items():
        print(f"  beside it, {name}: {error:.2f} %")
    if result.get("dataset") == "mnist-5k":
        print(f"  (which saw all of MNIST; this run had the {result['dataset_size']} training images of {result['dataset']})")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; the words are rl_zoo3's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--algo", default="ram", help=f"the algorithm: {', '.join(algorithm_names())}, or one that --imports registers")
    add("--env", default="GlimpseMNIST-v0", help="a registered environment's id")
    add("--preset", help="settings of another purpose: paper (Mnih et al. 2014) or best; default: the everyday ones")
    add("-n", "--n-timesteps", type=int, help="steps of the environment to learn from; default: the tuned number")
    add("--minutes", type=float, help="learn for so long instead (evaluations not counted), whatever the steps come to")
    add("--clock", default="wall", choices=CLOCKS, help="what --minutes are counted by: the wall's, or this process's own")
    add("--seed", type=int, default=0, help="seed of the networks, the samples and the environments")
    add("--n-envs", type=int, help="environments side by side, the batch; default: the tuned number")
    add("--evaluations", type=int, default=12, help="evaluations on validation, evenly spread (default: 12)")
    add("--eval-freq", type=int, help="steps from one evaluation on validation to the next instead")
    add("--no-test", dest="test", action="store_false", help="leave the test split alone: what is still chosen between")
    add("-P", "--progress", action="store_true", help="show a progress bar")
    add("-f", "--log-folder", default="logs", help="where run folders are made (default: logs)")
    add("--folder", help="the run's folder itself; an unfinished run in it goes on, a finished one is reported")
    add("-tb", "--tensorboard-log", help="a folder for TensorBoard's logs")
    add("-params", "--params", nargs="+", default=[], metavar="NAME:VALUE", help="settings of the algorithm to change")
    add("--env-kwargs", nargs="+", default=[], metavar="NAME:VALUE", help="options of the environment to change")
    add("-i", "--trained-agent", help=trained_agents())
    add("--eval-only", action="store_true", help="only measure the test error of the model that -i names")
    add("--record", metavar="PATH", help="film the model that -i names: a .gif or .mp4 of a few test episodes")
    add("--resume", action="store_true", help="go on with the newest unfinished run of this algorithm and environment")
    add("--imports", nargs="+", default=[], metavar="MODULE", help="modules to import first: they register what they like")
    add("--device", default="auto", help="cpu, cuda or auto (default)")
    add("--num-threads", type=int, default=1, help="threads of torch (default: 1)")
    options = parser.parse_args(arguments)
    if (options.eval_only or options.record) and not options.trained_agent:
        parser.error("--eval-only and --record need -i/--trained-agent")
    try:
        parse_pairs([*options.params, *options.env_kwargs])
        import_modules(options.imports)
        get_algorithm(options.algo)
        if options.trained_agent == PRETRAINED:
            read_settings(Trial(options.env, "", options.algo, trained_agent=PRETRAINED))
    except (ValueError, ModuleNotFoundError) as error:
        parser.error(str(error))
    return options


def trained_agents() -> str:
    """What -i takes."""
    ids = ", ".join(pretrained_ids()) or "none"
    return f"a saved model (.zip) to begin from or to show, or {PRETRAINED}: the package's own for --env (there are: {ids})"


def import_modules(names: list[str]) -> None:
    """Import the user's modules, from the current folder too."""
    if names:
        sys.path.insert(0, str(Path.cwd()))
    for name in names:
        importlib.import_module(name)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command with --resume goes on from the last checkpoint.")
