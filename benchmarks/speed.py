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
import itertools
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # A script finds only what lies beside it.

import ram_envs
from benchmarks.results import add_results

CARTPOLE = "CartPole-v1"
TRAINED = ("GlimpseMNIST-v0", "GlimpseTranslatedMNIST-v0")
EPISODE_STEPS = {"GlimpseCatch-v0": 23, "GlimpseMNIST-v0": 7}  # Where PPO learns.
DEFAULT_BATCH = 128  # RecurrentPPO's own.
PPO: dict[str, Any] = {"learning_rate": 3e-4, "gamma": 0.99, "gae_lambda": 0.95, "n_epochs": 4, "seed": 0, "device": "cpu"}
CANVAS = "GlimpseTranslatedMNIST-v0"
CANVAS_STEPS = 400  # Of a turn.
CONVOLUTIONS = 4  # Of a turn.

Row = dict[str, Any]  # Of results/speed.jsonl.
Timed = Callable[[], float]  # Works for a turn and returns what it reached, such as steps per second.


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the command line; returns a row for each measurement."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse_arguments(arguments)
    rows: list[Row] = options.measure(options)
    if options.json:
        from agents.training.run import current_commit, name_processor  # Brings torch: not while environments are timed.

        here = {"commit": current_commit(), "machine": name_processor()}
        command = shlex.join(["python", "benchmarks/speed.py", *arguments])
        add_results(options.json, [{**row, "command": command, **here} for row in rows])
    return rows


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def add(name: str, measure: Callable[[argparse.Namespace], list[Row]], rounds: int) -> Callable[..., Any]:
        command = commands.add_parser(name, description=measure.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        command.set_defaults(measure=measure)
        command.add_argument("--json", type=Path, help="a table of results for the rows, such as results/speed.jsonl")
        command.add_argument("--rounds", type=int, default=rounds, help=f"turns of each (default: {rounds})")
        return command.add_argument

    option = add("environments", measure_environments, rounds=7)
    option("--envs", nargs="+", default=list(ram_envs.ENVIRONMENTS), help="environments (default: all of ours)")
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


def take_turns(timed: Mapping[Any, Timed], rounds: int) -> list[dict[Any, float]]:
    """What each reached in each round; a first round, which compiles and warms up, is left out."""
    return [{name: run() for name, run in timed.items()} for _ in range(rounds + 1)][1:]


def median(turns: list[dict[Any, float]], name: Any, reference: Any = None) -> float:
    """The median over turns, of the ratio to the reference where one is named."""
    return statistics.median(turn[name] / (1 if reference is None else turn[reference]) for turn in turns)


def per_second(work: Callable[[], Any], amount: int, clock: Callable[[], float] = time.process_time) -> Timed:
    """Works for a turn; reaches the amount per second."""

    def run() -> float:
        start = clock()
        work()
        return amount / (clock() - start)

    return run


def print_table(header: Sequence[Any], lines: Iterable[Sequence[Any]]) -> None:
    """Print Markdown."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line] for line in lines]
    print("\n".join(f"| {' | '.join(line)} |" for line in [list(header), ["---"] * len(header), *cells]))


# Environments


def measure_environments(options: argparse.Namespace) -> list[Row]:
    """Environment steps per second beside Gymnasium's own native CartPole-v1, in native batches and alone."""
    ids = [CARTPOLE, *filter(has_data, options.envs)]
    modes = {**{num_envs: f"vector_{num_envs}" for num_envs in options.num_envs}, None: "single"}
    rows, cells = list[Row](), {env_id: [env_id] for env_id in ids}
    for num_envs, mode in modes.items():
        turns = take_turns({env_id: stepper(env_id, num_envs, options.seconds) for env_id in ids}, options.rounds)
        for env_id in ids:
            speed, ratio = round(median(turns, env_id)), round(median(turns, env_id, CARTPOLE), 3)
            row = {"env": env_id, "run": f"environments_{mode}", "num_envs": num_envs}
            rows.append({**row, "steps_per_second": speed, "ratio": ratio})
            cells[env_id].append(f"{speed:,} ({ratio})")
    print_table([f"steps per second (ratio to {CARTPOLE})", *modes.values()], cells.values())
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
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(64)]
    env.reset(seed=0)

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
    return round(statistics.median(seconds(f"{plain}, ram_envs") - seconds(plain) for _ in range(rounds)), 3)


# Training


def measure_training(options: argparse.Namespace) -> list[Row]:
    """Images per second of RAM.learn, environment included, beside its bare network on ready-made glimpses.

    The bare network is the same policy: forward over all steps, the same losses, backward, the same optimizer step, the same
    batch. It lacks the environment, the sampling of actions, SB3's loop and its logging. On the CPU the process's own time is
    counted, on other devices the wall's. "environment" is the share of the wall's time in which RAM.learn waits for it.
    """
    import torch

    torch.set_num_threads(1)
    rows = [compare_training(*pair, options) for pair in itertools.product(options.envs, options.num_envs)]
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    return rows


def compare_training(env_id: str, num_envs: int, options: argparse.Namespace) -> Row:
    """A row of `measure_training`."""
    from agents import RAM, make_vec_env

    device, updates = options.device, options.updates
    model = RAM("RAMPolicy", make_vec_env(env_id, num_envs), seed=0, device=device, learning_rate=1e-4)
    clock = time.process_time if device == "cpu" else time.perf_counter
    steps, waits = ram_envs.env_defaults(env_id)["num_glimpses"], list[float]()
    work = {"bare": bare_network(model, steps, updates), "learn": learner(model, steps * updates, waits)}
    turns = take_turns({name: per_second(run, updates * num_envs, clock) for name, run in work.items()}, options.rounds)
    return {
        "env": env_id,
        "run": f"training_batch_{num_envs}" + ("" if device == "cpu" else f"_{device}"),
        "num_envs": num_envs,
        "bare": round(median(turns, "bare")),
        "learn": round(median(turns, "learn")),
        "ratio": round(median(turns, "learn", "bare"), 3),
        "environment": round(statistics.median(waits[1:]), 3),
    }


def learner(model: Any, steps: int, waits: list[float]) -> Callable[[], None]:
    """Runs `RAM.learn` for some steps of each environment; adds the share of the time spent in the environment to `waits`."""
    step_wait, spent = model.env.step_wait, 0.0

    def timed_step_wait() -> Any:
        nonlocal spent
        start = time.perf_counter()
        result = step_wait()
        spent += time.perf_counter() - start
        return result

    model.env.step_wait = timed_step_wait

    def run() -> None:
        before, start = spent, time.perf_counter()
        model.learn(steps * model.n_envs, reset_num_timesteps=False)
        waits.append((spent - before) / (time.perf_counter() - start))

    return run


def bare_network(model: Any, steps: int, updates: int) -> Callable[[], None]:
    """Runs some updates of the network alone, each from a batch of episodes of some steps."""
    import torch

    from agents.losses import baseline_loss, classification_loss, location_log_prob, reinforce_loss

    policy, batch = model.policy, model.n_envs
    with torch.device(model.device):
        glimpses = torch.rand(steps, batch, *model.observation_space["glimpse"].shape)  # (T, N, ...)
        locations = torch.rand(steps, batch, 2) * 2 - 1
        labels = torch.randint(10, (steps, batch))
        returns, everywhere = torch.rand(steps, batch), torch.ones(steps, batch)

    def update() -> torch.Tensor:
        state, outputs = policy.initial_state(batch), []
        for step in range(steps):
            outputs.append(policy({"glimpse": glimpses[step], "location": locations[step]}, state))
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


# Recurrent PPO


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
    pairs = itertools.product(options.envs, options.num_envs)
    rows = [compare_recurrent(*pair, minibatches, options) for pair in pairs for minibatches in splits(*pair)]
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    return rows


def splits(env_id: str, num_envs: int) -> list[int]:
    """Gradient steps to an epoch: 4, and the number that RecurrentPPO's default batch size makes."""
    by_default = -(-num_envs * EPISODE_STEPS[env_id] // DEFAULT_BATCH)
    return [number for number in sorted({4, by_default}) if number <= num_envs]


def compare_recurrent(env_id: str, num_envs: int, minibatches: int, options: argparse.Namespace) -> Row:
    """A row of `measure_recurrent`."""
    from sb3_contrib import RecurrentPPO

    from agents import EpisodePPO, GlimpseExtractor, make_vec_env

    frames = num_envs * EPISODE_STEPS[env_id]  # Of an update.
    batch, turn = -(-frames // minibatches), frames * max(1, round(options.frames / frames))

    def timed(algorithm: Any, policy: str, **kwargs: Any) -> Timed:
        model = algorithm(policy, make_vec_env(env_id, num_envs, seed=0), **kwargs, **PPO)
        return per_second(lambda: model.learn(turn, reset_num_timesteps=False), turn)

    theirs = {"n_steps": EPISODE_STEPS[env_id], "batch_size": batch}
    network: dict[str, Any] = {"features_extractor_class": GlimpseExtractor, "lstm_hidden_size": 256, "net_arch": []}
    one_lstm = {**network, "shared_lstm": True, "enable_critic_lstm": False}
    models = {
        "episode_ppo": timed(EpisodePPO, "RecurrentPolicy", n_minibatches=minibatches, policy_kwargs={"core": "lstm"}),
        "shared": timed(RecurrentPPO, "MultiInputLstmPolicy", policy_kwargs=one_lstm, **theirs),
        "two_lstms": timed(RecurrentPPO, "MultiInputLstmPolicy", policy_kwargs=network, **theirs),
    }
    turns = take_turns(models, options.rounds)
    return {
        "env": env_id,
        "run": f"recurrent_vector_{num_envs}_batch_{batch}",
        "num_envs": num_envs,
        "batch": batch,
        **{name: round(median(turns, name)) for name in models},
        **{f"ratio_to_{name}": round(median(turns, "episode_ppo", name), 2) for name in ("shared", "two_lstms")},
        "precision": options.precision,
    }


# Canvases


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
        costs[label] = [round(1e6 / median(turns, size), 3) for size in options.sizes]
        about = {"env": CANVAS, "num_envs": num_envs} if num_envs else {}
        for size, cost in zip(options.sizes, costs[label], strict=True):
            rows.append({**about, "run": f"canvas_{name}_{size}x{size}", "canvas_size": size, "microseconds": cost})
    header = ["microseconds for an image", *(f"{size}x{size}" for size in options.sizes), "largest / smallest"]
    print_table(header, [[label, *own, round(max(own) / min(own), 2)] for label, own in costs.items()])
    if options.plot:
        plot_costs(costs, options.sizes, options.plot)
    return rows


def canvas_stepper(size: int, num_envs: int) -> Timed:
    """Takes steps on canvases of a size; reaches steps of one environment per second."""
    env = gym.make_vec(CANVAS, num_envs=num_envs, canvas_size=size, num_glimpses=10**9)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(CANVAS_STEPS)]
    env.reset(seed=0)

    def work() -> None:
        for action in actions:
            env.step(action)

    return per_second(work, CANVAS_STEPS * num_envs)


def convolver(size: int) -> Timed:
    """Convolves images of a size; reaches images per second."""
    import torch

    layer, image = torch.nn.Conv2d(1, 8, 10, stride=5).requires_grad_(False), torch.rand(1, 1, size, size)

    def work() -> None:
        for _ in range(CONVOLUTIONS):
            layer(image)

    return per_second(work, CONVOLUTIONS)


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
