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
from pathlib import Path

if not __package__:  # A script finds only what lies beside it.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich import table as rich_table
from rich.console import Console

from ram_envs.benchmarks.paper import Entries, gather
from ram_envs.benchmarks.paper_tables import (
    LOOKS,
    attention_table,
    further_table,
    glimpses_table,
    main_table,
    others_table,
    panels,
    runs_table,
    speed_table,
)
from ram_envs.benchmarks.plots import plot_panels, save_plot
from ram_envs.benchmarks.results import PROJECT, Row, add_results, read_results

PICTURE = Path("docs", "images", "tables.png")
CURVES = "learning curves: what the runs reached on validation against CPU minutes of training"
FILE_WIDTH = 180  # Of tables printed into a file.
ATTENTION = "attention.jsonl"  # Beside the table of runs.


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
    first = (main_table(entries, attention), further_table(entries), speed_table(entries))
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
    others = (glimpses_table(entries), others_table(entries), runs_table(entries))
    for table in (further_table(entries), speed_table(entries), looks, *others):
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
