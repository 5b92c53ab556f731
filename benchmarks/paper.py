"""The tables of the paper: its tasks and figures, and which runs of ours fill which entry.

All figures are in %: the test error, or in Catch the balls caught. The paper is Mnih et al. 2014, "Recurrent Models of Visual
Attention"; the best published figure is the lowest that a public implementation of this family claims.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ram_envs import env_defaults
from ram_envs.benchmarks.results import Row

SEEDS = 3  # A goal is a mean over this many.
PRESETS = {"paper": "faithful", "best": "best"}  # Of hyperparams/ram.yml, and their columns' titles.
OTHERS = {"ram_random": "RAM, random glimpses", "fc64": "FC 2x64", "fc256": "FC 2x256", "conv": "convolutional"}
WHOLE_SCENE = ("fc64", "fc256", "conv")  # The algorithm itself sets the glimpse of these.
GLIMPSE_OPTIONS = {"num_scales", "num_glimpses", "initial_location", "glimpse_size"}
# Options of an environment that do not change the task: the format of actions, the order of images, and how training images are
# bent; images of validation and test never are.
FREE_OPTIONS = {"action_format", "location_grid", "grid_extent", "image_order", "warp", "affine"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a row of the tables is about."""

    env_id: str
    title: str  # The task in the tables' words.
    goal: float  # For the mean of `SEEDS` seeds of the preset "best", or of the task's own.
    caught: bool = False  # The figures are balls caught: more is better.

    def figure(self, error: float) -> float:
        """An error in % as the task's figures count it."""
        return 100 - error if self.caught else error


@dataclass(frozen=True, kw_only=True)
class PaperTask(Task):
    """One environment of the paper's tables."""

    published: float  # The best published figure.
    paper: dict[int, float]  # The paper's figure for each number of glimpses; the largest is the environment's own.
    others: dict[str, float] = field(default_factory=dict)  # The paper's figures of other models, by our algorithms' names.

    @property
    def glimpses(self) -> int:
        """The environment's own number of glimpses."""
        return max(self.paper)


@dataclass(frozen=True, kw_only=True)
class FurtherTask(Task):
    """What the paper's tables have no row for, with a preset of its own."""

    preset: str
    options: dict[str, Any]  # Of the environment, which make the task.
    others_figure: float | None = None  # The best figure of others, where there is one.


_TASKS = (
    PaperTask(
        env_id="GlimpseMNIST-v0",
        title="MNIST 28x28, 8x8, 1 scale",
        published=0.67,
        goal=0.45,
        paper={2: 3.79, 3: 1.51, 4: 1.54, 5: 1.34, 6: 1.12, 7: 1.07},
        others={"fc256": 1.69, "conv": 1.21},
    ),
    PaperTask(
        env_id="GlimpseTranslatedMNIST-v0",
        title="Translated 60x60, 12x12, 3 scales",
        published=0.94,
        goal=0.45,
        paper={4: 1.54, 6: 1.22, 8: 1.20},
        others={"fc64": 6.42, "fc256": 2.63, "conv": 1.62},
    ),
    PaperTask(
        env_id="GlimpseClutteredMNIST-v0",
        title="Cluttered 60x60, 12x12, 3 scales",
        published=2.63,
        goal=1.10,
        paper={4: 4.96, 6: 4.08, 8: 4.04},
        others={"ram_random": 14.4, "fc64": 28.58, "fc256": 11.96, "conv": 8.09},
    ),
    PaperTask(
        env_id="GlimpseClutteredMNIST100-v0",
        title="Cluttered 100x100, 12x12, 4 scales",
        published=2.68,
        goal=1.20,
        paper={4: 9.41, 6: 8.31, 8: 8.11},
        others={"ram_random": 28.4, "conv": 14.35},
    ),
    PaperTask(env_id="GlimpseCatch-v0", title="Catch, balls caught", published=89, goal=99, paper={24: 85}, caught=True),
)
TASKS = {task.env_id: task for task in _TASKS}
FURTHER = (
    FurtherTask(  # Few glimpses, and no path that is the same for all images: what to look at has to be seen.
        env_id="GlimpseMNIST-v0",
        title="MNIST 28x28, 3 glimpses, no path",
        preset="adaptive",
        options={"num_glimpses": 3},
        others_figure=1.51,
        goal=1.51,
    ),
    FurtherTask(  # The paper's model; the paper does not say where the first look is, and of two looks it is half.
        env_id="GlimpseMNIST-v0",
        title="MNIST 28x28, 2 glimpses, the first in the middle, the paper's model",
        preset="center",
        options={"num_glimpses": 2, "initial_location": "center"},
        others_figure=3.79,
        goal=3.79,
    ),
    FurtherTask(  # As much clutter for the area as on 100x100. Known: a public DRAM with a context network, 8 glimpses of 20x20.
        env_id="GlimpseClutteredMNIST100-v0",
        title="Cluttered 250x250, 12x12, 5 scales",
        preset="wide",
        options={"canvas_size": 250, "num_clutter": 50, "num_scales": 5},
        others_figure=12.2,
        goal=6.0,
    ),
    FurtherTask(  # 24 columns x 3 speeds x 23 places of the paddle, and nobody says where to look first.
        env_id="GlimpseCatch-v0",
        title="Catch, paddle and first look anywhere, balls caught",
        preset="random",
        options={"paddle_start": "random", "initial_location": "random"},
        goal=99,
        caught=True,
    ),
)


@dataclass(frozen=True)
class Entry:
    """One entry of a table, a mean over runs that differ in nothing but the seed."""

    env_id: str
    algo: str = "ram"
    preset: str | None = None  # Of its hyperparameters; None: the everyday ones.
    glimpses: int | None = None  # Another number of glimpses than the environment's default.

    @property
    def name(self) -> str:
        """Such as "ram_best", "ram_paper_4glimpses" or "fc64"."""
        glimpses = f"{self.glimpses}glimpses" if self.glimpses else None
        return "_".join(part for part in (self.algo, self.preset, glimpses) if part)

    def run(self, seed: int) -> str:
        """The name of the run with this seed, such as "ram_best_seed0"."""
        return f"{self.name}_seed{seed}"


Entries = dict[Entry, list[Row]]  # The results of each entry, by seed.


def ram_entry(task: PaperTask, preset: str, glimpses: int | None = None) -> Entry:
    """The entry of the recurrent attention agent with one of `PRESETS`."""
    return Entry(task.env_id, preset=preset, glimpses=None if glimpses == task.glimpses else glimpses)


def entry_of(row: Row) -> Entry:
    """The entry that a run belongs to; the row is of a table of results, or a run's result.json.

    Raises:
        ValueError: it belongs to none; the message says why.
    """
    env_id, algo, preset, env_kwargs = row["env"], row["algo"], row.get("preset"), row.get("env_kwargs", {})
    task = TASKS.get(env_id)
    if task is None:
        raise ValueError(f"env must be one of {', '.join(TASKS)}, got {env_id!r}")
    further = {one.preset: one.options for one in FURTHER if one.env_id == env_id}
    allowed = {"ram": (*PRESETS, *further), **dict.fromkeys(task.others, (None,))}
    if preset not in allowed.get(algo, ()):
        raise ValueError(
            f"algo in {env_id} must be ram with a preset out of {', '.join([*PRESETS, *further])}"
            f"{''.join(f', or {other} without one' for other in task.others)}, got {algo} with preset {preset!r}"
        )
    if row.get("dataset", "mnist") != "mnist":
        raise ValueError(f"dataset must be 'mnist', got {row['dataset']!r}")
    free = FREE_OPTIONS | ({"num_glimpses"} if preset in PRESETS else GLIMPSE_OPTIONS if algo in WHOLE_SCENE else set())
    own = env_defaults(env_id)
    asked = own | further.get(preset or "", {})
    for name, value in (own | env_kwargs).items():
        if name not in free and (name not in own or asked[name] != value):
            others = f"those of the preset {preset}" if preset in further else "its own options"
            raise ValueError(f"{name}={value!r} makes another task of {env_id}: the tables have it with {others} alone")
    if algo != "ram" or preset in further:
        return Entry(env_id, algo, preset)
    glimpses = env_kwargs.get("num_glimpses", task.glimpses)
    if glimpses not in task.paper:
        raise ValueError(f"num_glimpses in {env_id} must be one of {', '.join(map(str, task.paper))}, got {glimpses!r}")
    return ram_entry(task, preset or "", glimpses)


def gather(results: Iterable[Row]) -> tuple[Entries, list[str]]:
    """The results by their entries, and why others belong to none."""
    entries: Entries = {}
    left_out = []
    for row in results:
        try:
            entries.setdefault(entry_of(row), []).append(row)
        except ValueError as error:
            left_out.append(f"{row['env']}, {row['run']}: {error}")
    for place, group in entries.items():
        if len({row["seed"] for row in group}) < len(group):
            names = ", ".join(row["run"] for row in group)
            raise ValueError(f"{place.env_id} has two runs with one seed among {names}: remove one")
        group.sort(key=lambda row: row["seed"])
    return entries, left_out
