"""How fast environments and agents are, each beside a reference that takes turns with it in one process, on one thread.

python benchmarks/speed.py environments   # steps per second beside Gymnasium's own native CartPole-v1
python benchmarks/speed.py training       # images per second of RAM.learn beside its bare network
python benchmarks/speed.py recurrent      # frames per second of EpisodePPO beside sb3-contrib's RecurrentPPO
python benchmarks/speed.py canvas         # a step on larger and larger images beside a convolution
python benchmarks/speed.py training --device cuda --envs GlimpseClutteredMNIST-v0 --num-envs 512 2048
python benchmarks/speed.py canvas --json results/speed.jsonl --plot docs/images/canvas.png

A speed is the median of its turns, a ratio the median of the turns' ratios: what slows the machine for a while slows both sides.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

if not __package__:  # A script finds only what lies beside it.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ram_envs
from ram_envs.benchmarks.results import Row, add_results
from ram_envs.benchmarks.speed_agents import EPISODE_STEPS, TRAINED, measure_recurrent, measure_training
from ram_envs.benchmarks.timing import Timed, median, per_second, print_table, take_turns

CARTPOLE = "CartPole-v1"
CANVAS = "GlimpseTranslatedMNIST-v0"
CANVAS_STEPS = 400  # Of a turn.
CONVOLUTIONS = 4  # Of a turn.


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the command line; returns a row for each measurement."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse_arguments(arguments)
    rows: list[Row] = options.measure(options)
    if options.json:
        from ram_envs.agents.training.config import (
            current_commit,
            name_processor,
        )  # Brings torch: not while environments are timed.

        here = {"commit": current_commit(), "machine": name_processor()}
        command = shlex.join(["python", "benchmarks/speed.py", *arguments])
        add_results(options.json, [{**row, "command": command, **here} for row in rows])
    return rows


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def add(name: str, measure: Callable[[argparse.Namespace], list[Row]], rounds: int) -> Callable[..., Any]:
        command = commands.add_parser(name, description=measure.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        command.set_defaults(measure=measure)
        command.add_argument("--json", type=Path, help="a table of results for the rows, such as results/speed.jsonl")
        command.add_argument("--rounds", type=int, default=rounds, help=f"turns of each (default: {rounds})")
        return command.add_argument

    option = add("environments", measure_environments, rounds=7)
    option("--envs", nargs="+", default=list(ram_envs.ENVIRONMENTS)[:8], help="environments (default: all of ours but flat ones)")
    option("--num-envs", nargs="+", type=int, default=[1, 16, 256, 1024], help="batches (default: 1 16 256 1024)")
    option("--seconds", type=float, default=0.4, help="of a turn (default: 0.4)")
    option = add("training", measure_training, rounds=11)
    option("--envs", nargs="+", default=list(TRAINED), help=f"environments (default: {' '.join(TRAINED)})")
    option("--num-envs", nargs="+", type=int, default=[128, 256], help="batches (default: 128 256)")
    option("--updates", type=int, default=20, help="of the network in a turn (default: 20)")
    option("--device", default="cpu", help="of torch (default: cpu); the environments stay on the CPU")
    option = add("recurrent", measure_recurrent, rounds=5)
    option("--envs", nargs="+", default=list(EPISODE_STEPS), choices=EPISODE_STEPS, help="environments (default: all)")
    option("--num-envs", nargs="+", type=int, default=[16, 64, 256], help="batches (default: 16 64 256)")
    option("--frames", type=int, default=6000, help="of a turn, about (default: 6000)")
    option("--precision", choices=("highest", "high", "medium"), default="highest", help="of float32 products")
    option = add("canvas", measure_canvas, rounds=15)
    option("--sizes", nargs="+", type=int, default=[60, 100, 200, 400, 1000], help="sides (default: 60 100 200 400 1000)")
    option("--plot", type=Path, help="also draw the costs there")
    return parser.parse_args(arguments)


def draw_actions(env: Any, number: int) -> list[Any]:
    """Reset an environment and draw actions for it."""
    env.reset(seed=0)
    env.action_space.seed(0)
    return [env.action_space.sample() for _ in range(number)]


def measure_environments(options: argparse.Namespace) -> list[Row]:
    """Environment steps per second beside Gymnasium's own native CartPole-v1, in native batches and alone."""
    ids = [CARTPOLE, *filter(has_data, options.envs)]
    modes = {**{num_envs: f"vector_{num_envs}" for num_envs in options.num_envs}, None: "single"}
    rows, shown = list[Row](), {env_id: {f"steps per second (ratio to {CARTPOLE})": env_id} for env_id in ids}
    for num_envs, mode in modes.items():
        turns = take_turns({env_id: stepper(env_id, num_envs, options.seconds) for env_id in ids}, options.rounds)
        for env_id in ids:
            speed, ratio = median(turns[env_id]), median(turns[env_id] / turns[CARTPOLE], 3)
            about = {"env": env_id, "run": f"environments_{mode}", "num_envs": num_envs}
            rows.append({**about, "steps_per_second": speed, "ratio": ratio})
            shown[env_id][mode] = f"{speed:,} ({ratio})"
    print_table(list(shown.values()))
    seconds = import_seconds(options.rounds)
    print(f"\nimport ram_envs takes {seconds} seconds more than import gymnasium, numpy")
    return [*rows, {"run": "environments_import", "seconds more than gymnasium, numpy": seconds}]


def has_data(env_id: str) -> bool:
    """Whether the environment's images can be loaded here; says so if not."""
    try:
        gym.make(env_id)
    except ram_envs.DataError as error:
        print(f"{env_id} is left out: {error}", file=sys.stderr)
        return False
    return True


def stepper(env_id: str, num_envs: int | None, seconds: float) -> Timed:
    """Steps a native batch, or a single environment (None), with actions drawn before; reaches steps per second."""
    env: Any = gym.make(env_id) if num_envs is None else gym.make_vec(env_id, num_envs, "vector_entry_point")
    actions = draw_actions(env, 64)

    def run() -> float:
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            for action in actions:
                _, _, terminated, truncated, _ = env.step(action)
                if num_envs is None and (terminated or truncated):
                    env.reset()
            count += len(actions)
        return count * (num_envs or 1) / spent

    return run


def import_seconds(rounds: int) -> float:
    """Seconds that `import ram_envs` takes more than `import gymnasium, numpy`, each in fresh processes."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    plain = "import gymnasium, numpy"
    return median(np.array([seconds(f"{plain}, ram_envs") - seconds(plain) for _ in range(rounds)]), 3)


def measure_canvas(options: argparse.Namespace) -> list[Row]:
    """What a step costs on larger and larger images, beside a convolution over the whole image (Mnih et al. 2014, section 1).

    The environment's step is timed without the making of scenes: episodes are long. The convolution is the first layer of the
    paper's network, 8 filters of 10x10 at stride 5, over the same images.
    """
    import torch

    torch.set_num_threads(1)
    rows, costs = list[Row](), dict[str, list[float]]()
    for num_envs, name, label in (
        (1, "vector_1", "a step, 1 environment"),
        (16, "vector_16", "a step, each of 16 environments"),
        (None, "convolution", "the convolution"),
    ):
        timed = {size: canvas_stepper(size, num_envs) if num_envs else convolver(size) for size in options.sizes}
        turns = take_turns(timed, options.rounds)
        costs[label] = [median(1e6 / own, 3) for own in turns.values()]
        about = {"env": CANVAS, "num_envs": num_envs} if num_envs else {}
        for size, cost in zip(options.sizes, costs[label], strict=True):
            rows.append({**about, "run": f"canvas_{name}_{size}x{size}", "canvas_size": size, "microseconds": cost})
    shown = {label: dict(zip([f"{size}x{size}" for size in options.sizes], own, strict=True)) for label, own in costs.items()}
    ratios = {label: round(max(own) / min(own), 2) for label, own in costs.items()}
    print_table([{"microseconds for an image": label, **shown[label], "largest / smallest": ratios[label]} for label in costs])
    if options.plot:
        plot_costs(costs, options.sizes, options.plot)
    return rows


def canvas_stepper(size: int, num_envs: int) -> Timed:
    """Takes steps on canvases of a size; reaches steps of one environment per second."""
    env = gym.make_vec(CANVAS, num_envs=num_envs, canvas_size=size, num_glimpses=10**9)
    actions = draw_actions(env, CANVAS_STEPS)
    return per_second(lambda: [env.step(action) for action in actions], CANVAS_STEPS * num_envs)


def convolver(size: int) -> Timed:
    """Convolves images of a size; reaches images per second."""
    import torch

    layer, image = torch.nn.Conv2d(1, 8, 10, stride=5).requires_grad_(False), torch.rand(1, 1, size, size)
    return per_second(lambda: [layer(image) for _ in range(CONVOLUTIONS)], CONVOLUTIONS)


def plot_costs(costs: Mapping[str, Sequence[float]], sizes: Sequence[int], path: Path) -> None:
    """Draw the costs in microseconds, one for each size, against the size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for label, microseconds in costs.items():
        axis.plot(sizes, microseconds, marker="o", label=label)
    axis.set(xlabel="side of the image in pixels", ylabel="microseconds for an image", xscale="log", yscale="log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.grid(True, alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
