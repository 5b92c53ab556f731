"""The paper's tables with our runs beside its figures: printed, or written into the docs.

python benchmarks/tables.py           # prints them
python benchmarks/tables.py --write   # writes them into README.md and docs/results.md, with the learning curves
python benchmarks/tables.py --check   # writes nothing; exits with 1 if those pages are out of date
python benchmarks/tables.py --attention   # measures on test what the pretrained agents' looks are worth, then prints

The runs are those of results/tables.jsonl, which `python benchmarks/reproduce.py` publishes; what looks are worth is kept beside
them in attention.jsonl. Of the pages only the part between the lines <!-- tables: begin --> and <!-- tables: end --> is written.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # A script finds only what lies beside it.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich import table as rich_table
from rich.console import Console

from ram_envs.benchmarks.paper import FURTHER, OTHERS, PRESETS, SEEDS, TASKS, Entries, Entry, Task, gather, ram_entry
from ram_envs.benchmarks.plots import Panel, plot_panels, save_plot
from ram_envs.benchmarks.results import PROJECT, Row, add_results, curve_of, read_results
from ram_envs.benchmarks.scores import Summary, summarize

PICTURE = Path("docs", "images", "tables.png")
CURVES = "learning curves: what the runs reached on validation against CPU minutes of training"
FILE_WIDTH = 180  # Of tables printed into a file.
NO_RESULT = "–"
LEAST = 0.01  # The smallest shortfall that two decimals show.
ATTENTION = "attention.jsonl"  # Beside the table of runs.
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="write the tables and the learning curves into the docs")
    what.add_argument("--check", action="store_true", help="write nothing, exit with 1 if the docs are out of date")
    parser.add_argument("--attention", action="store_true", help="first measure what the pretrained agents' looks are worth")
    parser.add_argument("--results", type=Path, help="the table of runs (default: results/tables.jsonl of the project)")
    parser.add_argument("--project", type=Path, default=PROJECT, help="the folder with README.md and docs (default: this one)")
    options = parser.parse_args(arguments)
    results = options.results or options.project / "results" / "tables.jsonl"
    try:
        if options.attention:
            measure_attention(results.with_name(ATTENTION), options.project / PICTURE.parent)
        entries, left_out = gather(read_results(results) if results.exists() else [])
        texts = pages(entries, options.project, results) if options.write or options.check else {}
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    for reason in left_out:
        print(f"Left out: {reason}", file=sys.stderr)
    if options.check:
        return check(texts)
    if options.write:
        write(texts, entries, options.project)
    else:
        show(entries, read_attention(results))
    return 0


def show(entries: Entries, attention: Sequence[Row]) -> None:
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    first = (main_table(entries, attention), further_table(entries))
    for table in (*first, glimpses_table(entries), others_table(entries), attention_table(attention)):
        shown = rich_table.Table(*table.header, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def pages(entries: Entries, project: Path, results: Path) -> dict[Path, str]:
    """The pages with the tables in them."""
    readme, docs = project / "README.md", project / "docs" / "results.md"
    attention = read_attention(results)
    first = main_table(entries, attention)
    short = [f"{first.title}.", "", *markdown_table(first.header, first.rows)]
    full = [*short]
    looks = attention_table(attention)
    for table in (further_table(entries), looks, glimpses_table(entries), others_table(entries), runs_table(entries)):
        full += ["", f"### {table.title}", "", *markdown_table(table.header, table.rows)] if table.rows else []
        if table is looks and looks.rows:
            rows = link(results.with_name(ATTENTION), docs)
            full += [
                "",
                f"The pretrained agents on test, one for each task: {rows}. The columns: [looks.md](looks.md).",
            ]
    if entries:
        full += ["", f"Every run, with its command, machine, hyperparameters and learning curve: {link(results, docs)}."]
    if panels(entries):
        full += ["", "### Learning curves", "", image(project / PICTURE, docs, CURVES)]
    return {page: replace_block(page, "tables", lines) for page, lines in ((readme, short), (docs, full))}


def write(texts: Mapping[Path, str], entries: Entries, project: Path) -> None:
    """Write the pages and the picture of the learning curves."""
    if shown := panels(entries):
        save_plot(plot_panels(shown), project / PICTURE)
    for page, text in texts.items():
        page.write_text(text, "utf-8")
        print(f"Written: {page}")


def check(texts: Mapping[Path, str]) -> int:
    """Name the pages that are out of date; returns the exit status, 1 if there are any."""
    stale = [page for page, text in texts.items() if page.read_text("utf-8") != text]
    for page in stale:
        print(f"{page} is out of date: run python benchmarks/tables.py --write")
    return int(bool(stale))


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


def attention_table(rows: Sequence[Row]) -> Table:
    """What the pretrained agents reach with their own looks, and without them."""
    own = {row["env"]: row for row in rows}
    cells = [
        [task.title, *(f"{task.figure(own[task.env_id][name]):.2f}" for name in LOOKS)]
        for task in TASKS.values()
        if task.env_id in own
    ]
    return Table("What attention is worth, in % as above", ["task", *LOOKS.values()], cells)


def read_attention(results: Path) -> list[Row]:
    """The rows beside a table of runs that say what looks are worth."""
    path = results.with_name(ATTENTION)
    return read_results(path) if path.exists() else []


def measure_attention(path: Path, pictures: Path) -> None:
    """Put a row into a table for each pretrained agent: what its looks are worth on test, with greedy locations and choices.

    The pictures are those of docs/looks.md, of all episodes and of the one with the index 3.
    """
    import torch  # Only here: tables are made without it.

    from ram_envs.agents import load_pretrained, pretrained_hyperparams, pretrained_ids
    from ram_envs.agents.training.config import current_commit, describe_machine
    from ram_envs.agents.training.looks import show_looks

    torch.set_num_threads(1)
    facts = {"command": "python benchmarks/tables.py --attention", "commit": current_commit()}
    facts |= {"machine": describe_machine(torch.device("cpu")), "torch": torch.__version__}
    for env_id in pretrained_ids():
        hyperparams = pretrained_hyperparams(env_id)
        torch.set_float32_matmul_precision(hyperparams["matmul_precision"])
        model, env_kwargs = load_pretrained(env_id, device="cpu"), hyperparams["env_kwargs"]
        measured = show_looks(model, env_id, env_kwargs, pictures, split="test", index=[3])
        del measured["pictures"]
        add_results(path, [{"env": env_id, "run": "pretrained_looks", **measured, **facts}])
        print(f"{env_id}: {', '.join(f'{measured[name]:.2f} % {title}' for name, title in LOOKS.items())}", flush=True)


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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def link(path: Path, page: Path, text: str | None = None) -> str:
    """A link from the page to a file, by a text or the file's name."""
    return f"[{text or path.name}]({Path(os.path.relpath(path, page.parent)).as_posix()})"


def image(path: Path, page: Path, text: str | None = None) -> str:
    """A picture on the page, with its name or a text for those who can't see it."""
    return f"!{link(path, page, text or path.stem)}"


def replace_block(page: Path, name: str, lines: Sequence[str]) -> str:
    """The text of a page with other lines between its markers of that name.

    Raises:
        FileNotFoundError: there is no such page.
        ValueError: the page has not each marker once, in their order.
    """
    text = page.read_text("utf-8")
    begin, end = (f"<!-- {name}: {what} -->\n" for what in ("begin", "end"))
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed) or text.count(begin) + text.count(end) != 2:
        raise ValueError(f"{page}: the page must hold a line {begin.strip()} and after it a line {end.strip()}, each once")
    return "\n".join([before + begin, *lines, "", end + after])


if __name__ == "__main__":
    sys.exit(main())
