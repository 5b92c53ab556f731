"""The paper's tables with our runs beside its figures: printed, or written into the docs.

python benchmarks/tables.py           # prints them
python benchmarks/tables.py --write   # puts them into README.md and docs/results.md, with the learning curves
python benchmarks/tables.py --check   # writes nothing; exits with 1 if those pages are out of date

The runs are those that `python benchmarks/reproduce.py` publishes. In the pages only what lies between the lines
<!-- tables: begin --> and <!-- tables: end --> is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # A script finds only what lies beside it.

from rich import table as rich_table
from rich.console import Console

from benchmarks.markdown import image, link, replace_block, table
from benchmarks.paper_tables import Runs, Table, gather, glimpses_table, main_table, others_table, runs_table
from benchmarks.pictures import Panel, plot_panels
from benchmarks.results import PublishedRun, folder_of, read_runs
from benchmarks.rows import PRESETS, TASKS, PaperTask, own_recipe

PROJECT = Path(__file__).resolve().parent.parent
MARKER = "tables"
CURVES = "what was reached on validation against CPU minutes of training"
FILE_WIDTH = 180  # Of the tables where no terminal says otherwise.


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options, parser = parse(arguments)
    results = options.results or options.project / "results" / "tables"
    try:
        runs, left_out = gather(read_runs(results) if any(results.glob("*/*.json")) else [])
        texts = pages(runs, options.project) if options.write or options.check else {}
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    for reason in left_out:
        print(f"Left out: {reason}", file=sys.stderr)
    if options.check:
        return check(texts)
    if options.write:
        write(texts, runs, options.project)
    else:
        show(runs)
    return 0


def show(runs: Runs) -> None:
    """Print the tables."""
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    for one in (main_table(runs), glimpses_table(runs), others_table(runs)):
        shown = rich_table.Table(*one.header, title=one.title, title_justify="left")
        for row in one.rows:
            shown.add_row(*row)
        console.print(shown)


def pages(runs: Runs, project: Path) -> dict[Path, str]:
    """The pages with the tables in them.

    Raises:
        FileNotFoundError: there is no such page.
        ValueError: a page has no place for the tables.
    """
    readme, docs = project / "README.md", project / "docs" / "results.md"
    summary = panels(runs)
    first = main_table(runs)
    full = [f"{first.title}.", "", *table_lines(first)]
    short = [*full, *(["", image(summary_picture(project), readme, CURVES)] if summary else [])]
    for one in (glimpses_table(runs), others_table(runs)):
        full += ["", f"### {one.title}", "", *table_lines(one)]
    if runs:
        every = runs_table(runs, partial(link, page=docs, text="json"))
        full += ["", f"### {every.title}", "", *table_lines(every)]
    if summary:
        full += ["", "### Learning curves"]
    for env_id in summary:
        full += ["", image(picture(project, env_id), docs, f"{env_id}: {CURVES}")]
    texts = {}
    for page, lines in ((readme, short), (docs, full)):
        try:
            texts[page] = replace_block(page.read_text("utf-8"), MARKER, lines)
        except ValueError as error:
            raise ValueError(f"{page}: {error}") from error
    return texts


def write(texts: Mapping[Path, str], runs: Runs, project: Path) -> None:
    """Write the pages and their pictures."""
    summary = panels(runs)
    if summary:
        plot_panels(list(summary.values()), summary_picture(project))
    for env_id, panel in summary.items():
        plot_panels([panel], picture(project, env_id))
    for page, text in texts.items():
        page.write_text(text, "utf-8")
        print(f"Written: {page}")


def check(texts: Mapping[Path, str]) -> int:
    """Name the pages that are out of date; returns the exit status, 1 if there are any."""
    stale = [page for page, text in texts.items() if page.read_text("utf-8") != text]
    for page in stale:
        print(f"{page} is out of date: run python benchmarks/tables.py --write")
    return int(bool(stale))


def panels(runs: Runs) -> dict[str, Panel]:
    """The learning curves of each task that has runs as it is."""
    shown = {env_id: panel(task, runs) for env_id, task in TASKS.items()}
    return {env_id: one for env_id, one in shown.items() if one.curves}


def panel(task: PaperTask, runs: Runs) -> Panel:
    """A task's learning curves, beside the paper's figure and the goal."""
    curves = {}
    for preset, column in PRESETS.items():
        if group := runs.get(own_recipe(task, preset)):
            curves[f"{column} ({describe_group(group)})"] = [run.curve for run in group]
    levels = {"the paper (test)": task.paper[task.glimpses], "goal (test)": task.goal}
    return Panel(task.title, curves, levels, "success" if task.caught else "error")


def describe_group(group: Sequence[PublishedRun]) -> str:
    """Such as "3 seeds" or, where CPU minutes are not those of a CPU alone, "3 seeds, with a GPU"."""
    seeds = f"{len(group)} seed{'s' if len(group) > 1 else ''}"
    machines = {machine for run in group for machine in run.result["machine"].split(", then ")}
    return seeds if all(machine.endswith(", cpu") for machine in machines) else f"{seeds}, with a GPU"


def picture(project: Path, env_id: str) -> Path:
    """Where the learning curves of an environment lie."""
    return project / "docs" / "images" / f"tables_{folder_of(env_id)}.png"


def summary_picture(project: Path) -> Path:
    """Where those of all environments together lie."""
    return project / "docs" / "images" / "tables.png"


def table_lines(one: Table) -> list[str]:
    """A table in Markdown."""
    return table(one.header, one.rows)


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="write the tables and the learning curves into the docs")
    what.add_argument("--check", action="store_true", help="write nothing, exit with 1 if the docs are out of date")
    parser.add_argument("--results", type=Path, help="the published runs (default: results/tables of the project)")
    parser.add_argument("--project", type=Path, default=PROJECT, help="the folder with README.md and docs (default: this one)")
    return parser.parse_args(arguments), parser


if __name__ == "__main__":
    sys.exit(main())
