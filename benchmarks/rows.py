"""The rows of the paper's tables, and which runs of ours stand in them.

All figures are in %: the test error, or in Catch the balls caught. The paper is Mnih et al. 2014, "Recurrent Models of Visual
Attention"; the best published figure is the lowest that a public implementation of this family claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.results import folder_of
from ram_envs import ENVIRONMENTS

SEEDS = 3  # That a goal is the mean of.
PRESETS = {"paper": "faithful", "best": "best"}  # Of hyperparams/ram.yml, and what their columns are called.
OTHERS = {"ram_random": "RAM, random glimpses", "fc64": "FC 2x64", "fc256": "FC 2x256", "conv": "convolutional"}
WHOLE_SCENE = ("fc64", "fc256", "conv")  # The algorithm itself says how these look at the scene.
LOOK = {"num_scales", "num_glimpses", "initial_location", "glimpse_size"}
# Options of an environment that leave the task what it is: how it is spoken to, in which order images come, and how training
# images are bent; those of validation and test never are.
FREE = {"action_format", "location_grid", "image_order", "warp", "affine"}


@dataclass(frozen=True)
class PaperTask:
    """One environment of the tables.

    Args:
        env_id: the environment.
        title: the task in the tables' words.
        glimpses: how many the environment has unless told otherwise.
        paper: the paper's figure for each number of glimpses that it has one for.
        published: the best published figure.
        goal: what the mean of `SEEDS` seeds of the preset "best" should be.
        others: the paper's figures of other models, by our algorithms' names.
        caught: the figures are balls caught: more is better.
    """

    env_id: str
    title: str
    glimpses: int
    paper: Mapping[int, float]
    published: float
    goal: float
    others: Mapping[str, float] = field(default_factory=dict)
    caught: bool = False


TASKS = {
    task.env_id: task
    for task in (
        PaperTask(
            "GlimpseMNIST-v0",
            "MNIST 28x28, 8x8, 1 scale",
            glimpses=7,
            paper={2: 3.79, 3: 1.51, 4: 1.54, 5: 1.34, 6: 1.12, 7: 1.07},
            published=0.67,
            goal=0.60,
            others={"fc256": 1.69, "conv": 1.21},
        ),
        PaperTask(
            "GlimpseTranslatedMNIST-v0",
            "Translated 60x60, 12x12, 3 scales",
            glimpses=8,
            paper={4: 1.54, 6: 1.22, 8: 1.20},
            published=0.94,
            goal=0.80,
            others={"fc64": 6.42, "fc256": 2.63, "conv": 1.62},
        ),
        PaperTask(
            "GlimpseClutteredMNIST-v0",
            "Cluttered 60x60, 12x12, 3 scales",
            glimpses=8,
            paper={4: 4.96, 6: 4.08, 8: 4.04},
            published=2.63,
            goal=1.90,
            others={"ram_random": 14.4, "fc64": 28.58, "fc256": 11.96, "conv": 8.09},
        ),
        PaperTask(
            "GlimpseClutteredMNIST100-v0",
            "Cluttered 100x100, 12x12, 4 scales",
            glimpses=8,
            paper={4: 9.41, 6: 8.31, 8: 8.11},
            published=2.68,
            goal=1.70,
            others={"ram_random": 28.4, "conv": 14.35},
        ),
        PaperTask("GlimpseCatch-v0", "Catch, balls caught", glimpses=24, paper={24: 85}, published=89, goal=99, caught=True),
    )
}


@dataclass(frozen=True)
class Recipe:
    """What is run with several seeds to fill one place in a table.

    Args:
        env_id: the environment.
        algo: the algorithm.
        preset: of its settings; None: its everyday ones.
        glimpses: how many there are instead of as many as the environment has.
    """

    env_id: str
    algo: str = "ram"
    preset: str | None = None
    glimpses: int | None = None

    @property
    def name(self) -> str:
        """Such as "ram_best", "ram_paper_4glimpses" or "fc64"."""
        glimpses = f"{self.glimpses}glimpses" if self.glimpses else None
        return "_".join(part for part in (self.algo, self.preset, glimpses) if part)

    @property
    def arguments(self) -> list[str]:
        """Of train_agent.py, without the seed."""
        algo = [] if self.algo == "ram" else ["--algo", self.algo]
        preset = ["--preset", self.preset] if self.preset else []
        env_kwargs = ["--env-kwargs", f"num_glimpses:{self.glimpses}"] if self.glimpses else []
        return [*algo, "--env", self.env_id, *preset, *env_kwargs]

    def run_name(self, seed: int) -> str:
        """Where a run lies below the folder of results, such as "GlimpseMNIST-v0/ram_best_seed0"."""
        return f"{folder_of(self.env_id)}/{self.name}_seed{seed}"


def own_recipe(task: PaperTask, preset: str, glimpses: int | None = None) -> Recipe:
    """The recurrent attention agent with one of `PRESETS`."""
    return Recipe(task.env_id, preset=preset, glimpses=None if glimpses == task.glimpses else glimpses)


def recipe_of(result: Mapping[str, Any]) -> Recipe:
    """Where a run stands in the tables, by what its result.json says.

    Raises:
        ValueError: nowhere; the message says why.
    """
    env_id, algo, env_kwargs = result["env"], result["algo"], result.get("env_kwargs", {})
    preset: Any = result.get("preset")
    task = TASKS.get(env_id)
    if task is None:
        raise ValueError(f"env must be one of {', '.join(TASKS)}, got {env_id!r}")
    allowed = {"ram": tuple(PRESETS), **dict.fromkeys(task.others, (None,))}
    if preset not in allowed.get(algo, ()):
        raise ValueError(
            f"algo in {env_id} must be ram with a preset out of {', '.join(PRESETS)}"
            f"{''.join(f', or {other} without one' for other in task.others)}, got {algo} with preset {preset!r}"
        )
    if result.get("dataset", "mnist") != "mnist":
        raise ValueError(f"dataset must be 'mnist', got {result['dataset']!r}")
    _check_options(env_id, env_kwargs, FREE | (LOOK if algo in WHOLE_SCENE else {"num_glimpses"} if algo == "ram" else set()))
    if algo != "ram":
        return Recipe(env_id, algo)
    glimpses = env_kwargs.get("num_glimpses", task.glimpses)
    if glimpses not in task.paper:
        raise ValueError(f"num_glimpses in {env_id} must be one of {', '.join(map(str, task.paper))}, got {glimpses!r}")
    return own_recipe(task, preset, glimpses)


def _check_options(env_id: str, env_kwargs: Mapping[str, Any], free: set[str]) -> None:
    own = ENVIRONMENTS[env_id]
    for name, value in env_kwargs.items():
        if name not in free and (name not in own or own[name] != value):
            raise ValueError(f"{name}={value!r} makes another task of {env_id}: the tables have it with its own options alone")
