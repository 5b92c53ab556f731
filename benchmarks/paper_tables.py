"""The paper's tables with our runs beside its figures, as text in rows and columns."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import PublishedRun
from benchmarks.rows import OTHERS, PRESETS, SEEDS, TASKS, PaperTask, Recipe, own_recipe, recipe_of
from benchmarks.scores import Summary, summarize

NO_RESULT = "–"
LEAST = 0.01  # The smallest shortfall that two decimals show.
# Options of train_agent.py that only say where a run lands or what is seen of it, and whether a value follows.
PLACES = {"--folder": 1, "-f": 1, "--log-folder": 1, "-tb": 1, "--tensorboard-log": 1, "-P": 0, "--progress": 0}


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        title: above it.
        header: the columns.
        rows: their cells.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Runs = dict[Recipe, list[PublishedRun]]  # By seed.


def gather(runs: Iterable[PublishedRun]) -> tuple[Runs, list[str]]:
    """The runs by where they stand in the tables, and why others stand nowhere.

    Raises:
        ValueError: two runs differ in nothing but their place.
    """
    placed: Runs = {}
    left_out = []
    for run in runs:
        try:
            recipe = recipe_of(run.result)
        except ValueError as error:
            left_out.append(f"{run.path}: {error}")
            continue
        others = placed.setdefault(recipe, [])
        for other in others:
            if other.result["seed"] == run.result["seed"]:
                raise ValueError(f"{other.path} and {run.path} are both {recipe.run_name(run.result['seed'])}: remove one")
        others.append(run)
    return {recipe: sorted(group, key=lambda run: run.result["seed"]) for recipe, group in placed.items()}, left_out


def main_table(runs: Runs) -> Table:
    """Each task as it is, with its goal."""
    rows = []
    for task in TASKS.values():
        own = [summarize_runs(runs, own_recipe(task, preset)) for preset in PRESETS]
        given = [show_figure(task, figure) for figure in (task.paper[task.glimpses], task.published, task.goal)]
        rows.append([task.title, str(task.glimpses), *given, *map(show_mean, own), show_shortfall(task, own[-1])])
    title = "Test error in %, of Catch balls caught in %; mean ± deviation over seeds"
    return Table(title, ["task", "glimpses", "paper", "best published", "goal", *PRESETS.values(), "against the goal"], rows)


def glimpses_table(runs: Runs) -> Table:
    """The paper's numbers of glimpses."""
    rows = []
    for task in TASKS.values():
        for glimpses, figure in task.paper.items():
            if len(task.paper) > 1:
                own = [show_mean(summarize_runs(runs, own_recipe(task, preset, glimpses))) for preset in PRESETS]
                rows.append([task.title, str(glimpses), show_figure(task, figure), *own])
    return Table("Fewer glimpses, test error in %", ["task", "glimpses", "paper", *PRESETS.values()], rows)


def others_table(runs: Runs) -> Table:
    """The paper's other models."""
    rows = [
        [task.title, OTHERS[algo], show_figure(task, figure), show_mean(summarize_runs(runs, Recipe(task.env_id, algo)))]
        for task in TASKS.values()
        for algo, figure in task.others.items()
    ]
    return Table("Other models, test error in %", ["task", "model", "paper", "ours"], rows)


def runs_table(runs: Runs, link: Callable[[Path], str]) -> Table:
    """Every run: what it reached, what it took, how to repeat it.

    Args:
        runs: all.
        link: from the page to a published result.
    """
    header = ["environment", "run", "seed", "validation, %", "test, %", "CPU s", "wall s", "passes or frames"]
    header += ["`python train_agent.py` …", "commit", "machine", "result"]
    rows = []
    for task in TASKS.values():
        for recipe in sorted((one for one in runs if one.env_id == task.env_id), key=rank):
            rows += [[task.env_id, recipe.name, *describe_run(task, run), link(run.path)] for run in runs[recipe]]
    return Table("Every run, in % as above", header, rows)


def rank(recipe: Recipe) -> tuple[bool, int, str]:
    """The order of a task's runs: ours by falling number of glimpses, then the others."""
    return recipe.algo != "ram", -(recipe.glimpses or TASKS[recipe.env_id].glimpses), recipe.name


def describe_run(task: PaperTask, run: PublishedRun) -> list[str]:
    """A run's figures, from its seed to its machine."""
    result = run.result
    reached = [f"{score(task, result[name]):.2f}" for name in ("validation_error", "test_error")]
    took = [f"{result[name]:.0f}" for name in ("train_cpu_seconds", "train_seconds")]
    command = f"`{shorten_command(result['command'] or '')}`"
    return [str(result["seed"]), *reached, *took, show_amount(run), command, show_commit(result["commit"]), result["machine"]]


def summarize_runs(runs: Runs, recipe: Recipe) -> Summary | None:
    """The mean of what its seeds reached on test, in the figures of its task; None without runs."""
    task = TASKS[recipe.env_id]
    group = runs.get(recipe)
    return summarize([score(task, run.result["test_error"]) for run in group]) if group else None


def score(task: PaperTask, error: float) -> float:
    """An error in % in the figures of the task."""
    return 100 - error if task.caught else error


def show_figure(task: PaperTask, figure: float) -> str:
    """Such as "1.07", of Catch "85"."""
    return f"{figure:g}" if task.caught else f"{figure:.2f}"


def show_mean(summary: Summary | None) -> str:
    """Such as "0.58 ± 0.03 (3 seeds)"."""
    if summary is None:
        return NO_RESULT
    deviation = "" if summary.deviation is None else f" ± {summary.deviation:.2f}"
    return f"{summary.mean:.2f}{deviation} ({summary.seeds} seed{'s' if summary.seeds > 1 else ''})"


def show_shortfall(task: PaperTask, summary: Summary | None) -> str:
    """Such as "reached", "misses by 0.12" or, before all seeds are there, "misses by 0.12 (1 of 3 seeds)"."""
    if summary is None:
        return NO_RESULT
    gap = round(task.goal - summary.mean if task.caught else summary.mean - task.goal, 6)  # The data have four decimals.
    amount = f"{gap:.2f}" if gap >= LEAST / 2 else f"less than {LEAST}"
    verdict = "reached" if gap <= 0 else f"misses by {amount}"
    return verdict if summary.seeds >= SEEDS else f"{verdict} ({summary.seeds} of {SEEDS} seeds)"


def show_amount(run: PublishedRun) -> str:
    """How often it saw the images, or how many frames it played."""
    steps = run.result["n_timesteps"]
    if "dataset_size" not in run.result:
        return f"{steps / 1e6:.1f} M frames"
    return f"{steps / run.curve['length'].mean() / run.result['dataset_size']:.0f}"


def show_commit(commit: str | None) -> str:
    """Such as "`5949b9932d`"; a tree that was not clean stays marked."""
    if commit is None:
        return NO_RESULT
    return f"`{commit[:10]}{'-dirty' if commit.endswith('-dirty') else ''}`"


def shorten_command(command: str) -> str:
    """The options behind `python train_agent.py` that make the run what it is, without those that say where it lands."""
    words = shlex.split(command)[2:]
    kept = []
    while words:
        word = words.pop(0)
        option, has_value, _ = word.partition("=")
        if option in PLACES:
            del words[: PLACES[option] if not has_value else 0]
        else:
            kept.append(word)
    return shlex.join(kept)
