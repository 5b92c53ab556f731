"""What the paper's tables say, with our runs beside its figures, and the learning curves behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ram_envs.benchmarks.paper import FURTHER, OTHERS, PRESETS, SEEDS, TASKS, Entries, Entry, Task, ram_entry
from ram_envs.benchmarks.plots import Panel
from ram_envs.benchmarks.results import Curve, Row, curve_of
from ram_envs.benchmarks.scores import Summary, summarize

NO_RESULT = "–"
LEAST = 0.01  # The smallest shortfall that two decimals show.
LOOKS = {  # What is measured of looks, see `ram_envs.agents.training.looks.measure`, and the columns' titles.
    "error": "its own looks",
    "error_along_mean_path": "mean path",
    "error_at_anothers_looks": "another's looks",
}


@dataclass(frozen=True)
class Table:
    """A table: its title, the names of its columns, and its cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def main_table(entries: Entries, attention: Sequence[Row] = ()) -> Table:
    """Each task with its default number of glimpses, what its looks are worth, and its goal."""
    rows = []
    pretrained = {row["env"]: row for row in attention}
    for task in TASKS.values():
        own = [summarize_entry(entries, ram_entry(task, preset)) for preset in PRESETS]
        given = [show_figure(task, figure) for figure in (task.paper[task.glimpses], task.published, task.goal)]
        blind = show_blind(task, entries.get(ram_entry(task, "best"), []), pretrained.get(task.env_id))
        rows.append([task.title, str(task.glimpses), *given, *map(show_mean, own), blind, show_shortfall(task, own[-1])])
    title = "Test error in %, of Catch balls caught in %; mean ± deviation over seeds; blind: the best, along its mean path"
    header = ["task", "glimpses", "paper", "best published", "goal", *PRESETS.values(), "blind", "against the goal"]
    return Table(title, header, rows)


def further_table(entries: Entries) -> Table:
    """What the paper has no row for."""
    rows = []
    for task in FURTHER:
        group = entries.get(Entry(task.env_id, preset=task.preset), [])
        own = summarize_errors(task, group) if group else None
        known = NO_RESULT if task.others_figure is None else show_figure(task, task.others_figure)
        command = f"`--env {task.env_id} --preset {task.preset}`"
        shown = [show_mean(own), show_blind(task, group), show_shortfall(task, own)]
        rows.append([task.title, command, known, show_figure(task, task.goal), *shown])
    header = ["task", "command", "known", "goal", "ours", "blind", "against the goal"]
    return Table("Beyond the paper's tables, in % as above", header, rows)


def show_blind(task: Task, group: Sequence[Row], pretrained: Row | None = None) -> str:
    """What the agents of an entry reach along the mean path of their looks; where that was not measured, the pretrained agent."""
    errors = [row["error_along_mean_path"] for row in group if "error_along_mean_path" in row]
    if errors and len(errors) == len(group):
        return show_spread(summarize([task.figure(error) for error in errors]))
    return f"{task.figure(pretrained['error_along_mean_path']):.2f} (pretrained)" if pretrained else NO_RESULT


def glimpses_table(entries: Entries) -> Table:
    """The paper's numbers of glimpses."""
    rows = []
    for task in TASKS.values():
        for glimpses, figure in task.paper.items():
            if len(task.paper) > 1:
                own = [show_mean(summarize_entry(entries, ram_entry(task, preset, glimpses))) for preset in PRESETS]
                rows.append([task.title, str(glimpses), show_figure(task, figure), *own])
    return Table("Fewer glimpses, test error in %", ["task", "glimpses", "paper", *PRESETS.values()], rows)


def others_table(entries: Entries) -> Table:
    """The paper's other models."""
    rows = [
        [task.title, OTHERS[algo], show_figure(task, figure), show_mean(summarize_entry(entries, Entry(task.env_id, algo)))]
        for task in TASKS.values()
        for algo, figure in task.others.items()
    ]
    return Table("Other models, test error in %", ["task", "model", "paper", "ours"], rows)


def speed_table(entries: Entries) -> Table:
    """How soon the best reach the paper's figure on validation: at the first evaluation that shows it."""
    rows = []
    for task in TASKS.values():
        group = entries.get(ram_entry(task, "best"), [])
        reached = [
            one for row in group if (one := first_reach(curve_of(row), task.paper[task.glimpses], task.caught)) is not None
        ]
        shown = [NO_RESULT, NO_RESULT]
        if reached and len(reached) == len(group):
            steps, seconds = (summarize(values) for values in zip(*reached, strict=True))
            shown = [show_spread(steps, 1e-6), f"{seconds.mean:.0f}{' + GPU' * uses_gpu(group)}"]
        rows.append([task.title, show_figure(task, task.paper[task.glimpses]), *shown])
    return Table("How soon the best reach the paper's figure, on validation", ["task", "paper", "million steps", "CPU s"], rows)


def first_reach(curve: Curve, figure: float, is_least: bool) -> tuple[float, float] | None:
    """Steps and CPU seconds at the first evaluation with at most this error in %, or at least this success; None: none has."""
    success = 100 * curve["success"]
    reached = np.flatnonzero(success >= figure if is_least else 100 - success <= figure + 1e-9)
    return (float(curve["timesteps"][reached[0]]), float(curve["cpu_seconds"][reached[0]])) if reached.size else None


def attention_table(rows: Sequence[Row]) -> Table:
    """What the pretrained agents reach with their own looks, and without them."""
    own = {row["env"]: row for row in rows}
    cells = [
        [task.title, *(f"{task.figure(own[task.env_id][name]):.2f}" for name in LOOKS)]
        for task in TASKS.values()
        if task.env_id in own
    ]
    return Table("What attention is worth, in % as above", ["task", *LOOKS.values()], cells)


def runs_table(entries: Entries) -> Table:
    """The runs of each entry: what they reached, their cost, and the commits they were run at."""
    header = ["environment", "runs", "seeds", "validation, %", "test, %", "CPU s", "epochs or frames", "commit"]
    rows = []
    for task in TASKS.values():
        for place in sorted((one for one in entries if one.env_id == task.env_id), key=rank):
            group = entries[place]
            errors = [summarize_errors(task, group, split) for split in ("validation", "test")]
            seconds = f"{np.mean([row['train_cpu_seconds'] for row in group]):.0f}{' + GPU' * uses_gpu(group)}"
            seeds = ", ".join(str(row["seed"]) for row in group)
            commits = ", ".join(dict.fromkeys(show_commit(row["commit"]) for row in group))
            rows.append([task.env_id, place.name, seeds, *map(show_spread, errors), seconds, show_amount(group), commits])
    return Table("The runs, in % as above", header, rows)


def rank(place: Entry) -> tuple[bool, int, str]:
    """The order of a task's entries: ours by falling number of glimpses, then the other models."""
    return place.algo != "ram", -(place.glimpses or TASKS[place.env_id].glimpses), place.name


def summarize_errors(task: Task, group: Sequence[Row], split: str = "test") -> Summary:
    """What the runs reached on a split, in the figures of their task."""
    return summarize([task.figure(row[f"{split}_error"]) for row in group])


def summarize_entry(entries: Entries, place: Entry) -> Summary | None:
    """What an entry reached on test; None without runs."""
    return summarize_errors(TASKS[place.env_id], entries[place]) if place in entries else None


def show_figure(task: Task, figure: float) -> str:
    """Such as "1.07", of Catch "85"."""
    return f"{figure:g}" if task.caught else f"{figure:.2f}"


def show_spread(summary: Summary, factor: float = 1) -> str:
    """Such as "0.58 ± 0.03", times the factor."""
    return f"{factor * summary.mean:.2f}" + ("" if summary.deviation is None else f" ± {factor * summary.deviation:.2f}")


def show_mean(summary: Summary | None) -> str:
    """Such as "0.58 ± 0.03 (3 seeds)"."""
    return f"{show_spread(summary)} ({count_seeds(summary.seeds)})" if summary else NO_RESULT


def count_seeds(number: int) -> str:
    """Such as "3 seeds"."""
    return f"{number} seed{'s' if number > 1 else ''}"


def show_shortfall(task: Task, summary: Summary | None) -> str:
    """Such as "reached", "misses by 0.12" or, with fewer seeds than the goal asks for, "misses by 0.12 (1 of 3 seeds)"."""
    if summary is None:
        return NO_RESULT
    gap = round(task.goal - summary.mean if task.caught else summary.mean - task.goal, 6)  # The data have four decimals.
    amount = f"{gap:.2f}" if gap >= LEAST / 2 else f"less than {LEAST}"
    verdict = "reached" if gap <= 0 else f"misses by {amount}"
    return verdict if summary.seeds >= SEEDS else f"{verdict} ({summary.seeds} of {SEEDS} seeds)"


def show_amount(group: Sequence[Row]) -> str:
    """The number of epochs, or of frames where there are no images; a mean over the runs."""
    if "dataset_size" not in group[0]:
        return f"{np.mean([row['n_timesteps'] for row in group]) / 1e6:.1f} M frames"
    epochs = [row["n_timesteps"] / np.mean(row["curve"]["length"]) / row["dataset_size"] for row in group]
    return f"{np.mean(epochs):.0f}"


def show_commit(commit: str | None) -> str:
    """Such as "`5949b9932d`", or "`5949b9932d-dirty`" where changes were not committed."""
    return f"`{commit[:10]}{'-dirty' * commit.endswith('-dirty')}`" if commit else NO_RESULT


def panels(entries: Entries) -> list[Panel]:
    """Each task's learning curves with its default number of glimpses, if any, beside the paper's figure and the goal."""
    shown = []
    for task in TASKS.values():
        groups = {column: entries.get(ram_entry(task, preset), []) for preset, column in PRESETS.items()}
        curves = {
            f"{column} ({count_seeds(len(own))}{', with a GPU' * uses_gpu(own)})": [curve_of(row) for row in own]
            for column, own in groups.items()
            if own
        }
        levels = {"the paper (test)": task.paper[task.glimpses], "goal (test)": task.goal}
        if curves:
            shown.append(Panel(task.title, curves, levels, "success" if task.caught else "error"))
    return shown


def uses_gpu(group: Sequence[Row]) -> bool:
    """Whether a GPU did a part of the work."""
    return not all(machine.endswith(", cpu") for row in group for machine in row["machine"].split(", then "))
