"""Train, evaluate and look at agents.

python train_agent.py                                   # the recurrent attention agent on GlimpseMNIST-v0, tuned hyperparameters
python train_agent.py --env GlimpseCatch-v0             # plays Catch, learning from the final reward alone
python train_agent.py --progress --seed 3 -n 7000000    # that many steps of the environment
python train_agent.py --algo ppo --env GlimpseCatch-v0  # any other algorithm; --help names them
python train_agent.py --images FOLDER                   # your own images: a sub-folder for each class, see docs/own-images.md
python train_agent.py --resume                          # resumes the newest unfinished run
python train_agent.py -i logs/ram/GlimpseMNIST-v0_1 --eval-only
python train_agent.py -i logs/ram/GlimpseCatch-v0_1/best_model.zip --record catch.gif
python train_agent.py -i logs/ram/GlimpseMNIST-v0_1 --watch --index 8 92  # in a window: the test images 8 and 92
python train_agent.py -i logs/ram/GlimpseMNIST-v0_1 --looks --index 3
python train_agent.py -i pretrained --env ID --eval-only  # a trained agent that comes with the package, see docs/pretrained.md
python train_agent.py --env-kwargs num_glimpses:4 -params learning_rate:lin_0.002 policy_kwargs.core:lstm
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import shlex
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym
import torch

from ram_envs import from_folder, load_images, parse_pairs
from ram_envs.agents import algorithm_names, make_vec_env, pretrained_hyperparams, pretrained_ids
from ram_envs.agents.pretrained import PRETRAINED
from ram_envs.agents.training.callbacks import CLOCKS, end_by_signal
from ram_envs.agents.training.checkpoints import checkpoints_in
from ram_envs.agents.training.config import RunConfig, new_folder, read_args, read_hyperparams, run_of, unfinished_run
from ram_envs.agents.training.evaluation import evaluate_on_test, evaluation_of
from ram_envs.agents.training.figures import record, watch_in_window
from ram_envs.agents.training.looks import show_looks
from ram_envs.agents.training.run import Run, class_names, load_agent, run
from ram_envs.agents.training.settings import OWN_IMAGES

# Test error in % (of Catch: balls missed) of the paper and of public implementations, with the glimpses that our default has.
PEERS = {
    "GlimpseMNIST-v0": {"the paper (7 glimpses)": 1.07, "the most used PyTorch implementation (claimed)": 1.21},
    "GlimpseCatch-v0": {"the paper (20 million frames)": 15.0, "the best public implementation (claimed)": 11.0},
}


def main(arguments: Sequence[str] | None = None, prog: str = "train_agent.py") -> dict[str, Any]:
    """Run the command line and return what was measured; what is wrong ends it with one line."""
    parser = make_parser(prog)
    options = parser.parse_args(arguments)
    folder, start = Path(), time.time()
    try:
        config = read_config(options, arguments)
        if is_show(options):
            return show(config, options)
        folder = Path(config.folder or new_folder(Path(options.log_folder), config.algo, config.env))
        print(f"Run folder: {folder}", flush=True)
        result = run(replace(config, folder=str(folder)))
    except KeyboardInterrupt as stop:
        print(f"\nStopped. {how_to_resume(folder, options)}", file=sys.stderr)
        sys.exit(128 + getattr(stop, "signum", signal.SIGINT))
    except Exception as error:
        message, evaluations = " ".join(str(error).split()), folder / "evaluations.npz"
        if not isinstance(error, (ValueError, OSError, ImportError, ArithmeticError, gym.error.Error)):
            frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
            message = f"{type(error).__name__}: {message} ({Path(frame.f_code.co_filename).name}, line {line})"
        if not evaluations.exists() or evaluations.stat().st_mtime < start:  # Nothing was learned: the command is wrong.
            parser.error(message)
        if not isinstance(error, (OSError, ArithmeticError)):
            raise
        sys.exit(f"{parser.prog}: error: {message}. {how_to_resume(folder, options)}")
    report(result, folder)
    return result


def how_to_resume(folder: Path, options: argparse.Namespace) -> str:
    """The command that resumes a run."""
    if not checkpoints_in(folder):
        return "There is no checkpoint to resume from."
    words = [sys.executable, __file__, "--resume", "--folder", str(folder), *(["--trust"] if "trust" in options else [])]
    return f"To resume: {shlex.join(words)}"


def parse_config(arguments: Sequence[str]) -> RunConfig:
    """What a command line asks for.

    Raises:
        ValueError: something is out of range or unknown.
    """
    return read_config(make_parser().parse_args(arguments), arguments)


def read_config(options: argparse.Namespace, arguments: Sequence[str] | None) -> RunConfig:
    """What the options ask for; the folder is the one they name, that of an unfinished run, or "" for a new one.

    A trained agent out of a run's folder brings the run's algorithm, environment and modules.

    Raises:
        ValueError: something is out of range, unknown, or without its other half.
        ModuleNotFoundError: a module of --imports is missing.
        FileNotFoundError: there is no unfinished run to resume.
    """
    names, shows = {field.name for field in fields(RunConfig)}, is_show(options)
    given = {name: value for name, value in vars(options).items() if name in names}
    given |= {name: parse_pairs(given[name]) for name in ("hyperparams", "env_kwargs") if name in given}
    if options.images:
        given["env_kwargs"] = {**given.get("env_kwargs", {}), "dataset": read_images(options.images)}
        if run_of(given.get("trained_agent")) is None:  # A run knows its environment.
            given.setdefault("env", OWN_IMAGES)
    if shows and "trained_agent" not in given:
        raise ValueError("--eval-only, --record, --watch and --looks need -i/--trained-agent")
    if options.index and not (options.record or options.watch or options.looks):
        raise ValueError("--index says what to show: it needs --record, --watch or --looks")
    if options.episodes is not None and not (options.record or options.watch):
        raise ValueError("--episodes says how many to show: it needs --record or --watch")
    if (options.split or options.out) and not options.looks:
        raise ValueError("--split and --out are those of --looks: they need it")
    if shows and options.resume:
        raise ValueError("--resume continues a training: it can't be given with --eval-only, --record, --watch or --looks")
    if options.resume:
        given = unfinished_run(Path(options.log_folder), given)
    else:
        given["command"] = shlex.join(["python", "train_agent.py", *(sys.argv[1:] if arguments is None else arguments)])
        if "trained_agent" in given and (folder := run_of(given["trained_agent"])):
            stored = read_args(folder)["config"]
            given = {**{name: stored[name] for name in ("algo", "env", "imports") if name in stored}, **given}
    import_modules(given.get("imports", []))
    config = RunConfig(**given)
    if config.trained_agent == PRETRAINED:
        pretrained_hyperparams(config.env)  # Raises where there is none, before a folder is made.
    return config


def read_images(words: Sequence[str]) -> str:
    """The data set in the folder that --images names, with the options of `from_folder` behind it; says what it found.

    Raises:
        ValueError: an option is unknown or out of range.
        DataError: the folder does not hold images of classes.
    """
    options, known = parse_pairs(words[1:]), list(inspect.signature(from_folder).parameters)[1:]
    if unknown := [name for name in options if name not in known]:
        raise ValueError(f"--images FOLDER may be followed by {', '.join(known)}, got {unknown[0]}")
    name = from_folder(words[0], **options)
    train, *others = (load_images(name, split) for split in ("train", "validation", "test"))
    numbers = " / ".join(str(len(one.labels)) for one in (train, *others))
    what = f"{train.num_classes} classes ({', '.join(train.class_names or ())[:200]})"
    size = "x".join(map(str, train.images.shape[-2:])) + (" in colour" if train.images.ndim == 4 else " grey")
    print(f"{words[0]}: {numbers} images to train, validate and test, of {what}, {size}", file=sys.stderr)
    return name


def is_show(options: argparse.Namespace) -> bool:
    """Whether the options ask to show a trained agent, not to train one."""
    return bool(options.eval_only or options.record or options.watch or options.looks)


def show(config: RunConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate, film or watch a trained model, or tell why it looks where it looks."""
    torch.set_num_threads(config.num_threads)
    hyperparams, env_kwargs = read_hyperparams(config)
    torch.set_float32_matmul_precision(hyperparams["matmul_precision"])
    frame_stack = hyperparams.get("frame_stack", 1)
    env = make_vec_env(config.env, hyperparams["n_envs"], frame_stack=frame_stack, **env_kwargs)
    model = load_agent(Run(config, None, hyperparams, env_kwargs), env)
    check_classes(config, class_names(env))
    result: dict[str, Any] = {"env": config.env}
    if options.eval_only:
        result |= evaluate_on_test(model, config.env, env_kwargs, frame_stack)
    if options.record or options.watch:
        shown = {"num_episodes": options.episodes, "index": options.index, "seed": config.seed, "frame_stack": frame_stack}
        shown |= {**env_kwargs, **evaluation_of(env, "test").env_kwargs}
    if options.record:
        result["frames"] = record(model, config.env, Path(options.record), **shown)
    if options.watch:
        result["episodes"] = watch_in_window(model, config.env, **shown)
    if options.looks:
        shown = {"split": options.split or "validation", "index": options.index, "frame_stack": frame_stack}
        result |= show_looks(model, config.env, env_kwargs, Path(options.out or "looks"), **shown)
    print(json.dumps(result, indent=2))
    return result


def check_classes(config: RunConfig, names: list[str] | None) -> None:
    """Refuse images of classes that the agent has not learned: as many, but others."""
    learned = None if config.agent_run is None else read_args(config.agent_run).get("class_names")
    if learned is not None and names is not None and learned != names:
        one, other = (", ".join(classes)[:200] for classes in (learned, names))
        raise ValueError(f"{config.trained_agent} has learned the classes {one}, and the images are of the classes {other}")


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


class Parser(argparse.ArgumentParser):
    """Ends with one line where something is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def make_parser(prog: str = "train_agent.py") -> argparse.ArgumentParser:
    """The command line; the words are rl_zoo3's."""
    parser = Parser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # What is not given is left to `RunConfig`.
    )
    parser.set_defaults(eval_only=False, record=None, watch=False, episodes=None, resume=False, log_folder="logs", images=None)
    parser.set_defaults(looks=False, split=None, index=[], out=None)
    add = parser.add_argument
    add(
        "--algo",
        help=f"the algorithm (default: ram): {', '.join(algorithm_names())}, one that --imports registers, or module:Class",
    )
    add("--env", help="a registered environment's id (default: GlimpseMNIST-v0)")
    add("--images", nargs="+", metavar=("FOLDER", "NAME:VALUE"), help=IMAGES)
    add("--preset", help="hyperparameters of another purpose: paper (Mnih et al. 2014) or best; default: the everyday ones")
    add("-n", "--n-timesteps", type=int, help="steps of the environment to learn from; default: the tuned number")
    add("--minutes", type=float, help="the time to learn for instead (evaluations not counted)")
    add("--clock", choices=CLOCKS, help="what counts --minutes: the wall clock (default), or this process's CPU time")
    add("--seed", type=int, help="seed of the networks, the samples and the environments (default: 0)")
    add("--n-envs", type=int, help="environments side by side, the batch; default: the tuned number")
    add("--evaluations", type=int, help="evaluations on validation, evenly spread (default: 12)")
    add("--eval-freq", type=int, help="steps from one evaluation on validation to the next instead")
    add("--no-test", dest="test", action="store_false", help="leave the test split alone, while you still choose")
    add("-P", "--progress", action="store_true", help="show a progress bar")
    add("-f", "--log-folder", help="where run folders are made (default: logs)")
    add("--folder", help="the run's folder itself; an unfinished run in it is resumed, a finished one is reported")
    add("-tb", "--tensorboard-log", help="a folder for TensorBoard's logs")
    add("-params", "--hyperparams", nargs="+", metavar="NAME:VALUE", help="hyperparameters to change")
    add("--env-kwargs", nargs="+", metavar="NAME:VALUE", help="options of the environment to change")
    add("-i", "--trained-agent", help=TRAINED_AGENTS)
    add("--eval-only", action="store_true", help="only measure the test error of the model that -i names")
    add("--record", metavar="PATH", help="film the model that -i names: a .gif or .mp4 of a few test episodes")
    add("--watch", action="store_true", help="show the model that -i names in a window, until that is closed: test episodes")
    add("--episodes", type=int, help="how many to film (default: 6, or those of --index) or to watch (default: until you close)")
    add("--looks", action="store_true", help="measure and draw where the model that -i names looks, and why: see docs/looks.md")
    add("--split", choices=("validation", "test"), help="the split of --looks (default: validation)")
    add(
        "--index",
        type=int,
        nargs="+",
        help="which images of the split, or seeds of games, to film, to watch or to draw with --looks",
    )
    add("--out", metavar="FOLDER", help="where the pictures of --looks go (default: looks)")
    add("--trust", action="store_true", help="let -i load a zip from elsewhere: SB3 stores pickled code in it, which then runs")
    add("--resume", action="store_true", help=RESUME)
    add("--imports", nargs="+", metavar="MODULE", help="modules to import first: they register what they like")
    add("--device", help="cpu, cuda or auto (default)")
    add("--num-threads", type=int, help="threads of torch (default: 1)")
    return parser


TRAINED_AGENTS = (
    "what to begin from or to show: a run's folder or a model in it, with the run's algorithm, environment, hyperparameters and "
    "options; a model from elsewhere (.zip, needs --trust); or pretrained: the package's own for --env (there are: "
    f"{', '.join(pretrained_ids()) or 'none'})"
)
IMAGES = (
    "learn your own images: a folder with a sub-folder for each class, perhaps followed by options of ram_envs.from_folder, such "
    f"as size:64 or size:48,64 (default --env: {OWN_IMAGES})"
)
RESUME = (
    "resume the newest unfinished run of this algorithm and environment that agrees with all options given here, or the one of "
    "--folder; only --device, --num-threads, --progress and --tensorboard-log may differ"
)


def import_modules(names: Sequence[str]) -> None:
    """Import the user's modules, from the current folder too, where no installed package has the name: it stays on the path."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for name in names:
        importlib.import_module(name)


def command(arguments: Sequence[str] | None = None, prog: str = "train_agent.py") -> None:
    """The command line as a process of its own: warnings take one line, and SIGTERM saves a checkpoint."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    signal.signal(signal.SIGTERM, end_by_signal)
    main(arguments, prog)


if __name__ == "__main__":
    command()
