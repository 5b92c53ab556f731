"""Make the page of a comparison out of its published results: tables, learning curves, aggregates, and how to have them again.

python benchmarks/leaderboard.py results/comparison --page docs/leaderboard.md

Beside the page come its numbers (leaderboard.csv) and its pictures (the folder leaderboard).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # A script finds only what lies beside it.

from benchmarks.markdown import bold, describe_images, image, link, show_cost, show_estimate, show_success, table
from benchmarks.pictures import plot_aggregates, plot_curves
from benchmarks.results import PublishedRun, folder_of, read_comparison, read_runs
from benchmarks.scores import (
    AGGREGATES,
    CHANCE,
    RESAMPLES,
    Summary,
    environment_sets,
    estimate_all,
    ranking,
    scores_of,
    summarize,
)

FIGURES = ("success_rate", "mean_reward", "n_timesteps", "train_cpu_seconds", "train_seconds")
NO_RESULT = "–"


@dataclass(frozen=True)
class Board:
    """All that the page tells of.

    Args:
        runs: every one.
        algos: the algorithms, the best first.
        env_ids: the environments.
        cells: for an algorithm and an environment each of `FIGURES` over the seeds.
        comparison: the commands, and what the algorithms are.
    """

    runs: list[PublishedRun]
    algos: list[str]
    env_ids: list[str]
    cells: dict[tuple[str, str], dict[str, Summary]]
    comparison: dict[str, Any]

    def sees_scene(self, algo: str) -> bool:
        """Whether it sees the whole scene instead of glimpses."""
        return self.comparison["algorithms"].get(algo, {}).get("sees_scene", False)

    def uses_labels(self, algo: str) -> bool:
        """Whether it learns the class from the labels where there are labels."""
        return self.comparison["algorithms"].get(algo, {}).get("uses_labels", False)

    def describe(self, algo: str) -> str:
        """What it is, in one sentence."""
        return self.comparison["algorithms"].get(algo, {}).get("summary") or "no description"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder that compare.py --results filled")
    parser.add_argument("--page", type=Path, default=Path("leaderboard.md"), help="where to write (default: leaderboard.md)")
    options = parser.parse_args(arguments)
    try:
        write_page(options.results, options.page)
    except FileNotFoundError as error:
        parser.error(str(error))
    print(f"Leaderboard: {options.page}")


def write_page(results: Path, page: Path) -> None:
    """Write the page (.md), its numbers (.csv) and its pictures, in a folder of the same name.

    Raises:
        FileNotFoundError: there are no results in the folder.
    """
    board = read_board(results)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_csv(board, page.with_suffix(".csv"))
    sections = [*tables(board), *aggregates(board, page), *curves(board, page), *origin(board, results, page)]
    page.write_text("\n".join(sections) + "\n")


def read_board(results: Path) -> Board:
    """Gather the runs."""
    runs = read_runs(results)
    groups: dict[tuple[str, str], list[PublishedRun]] = {}
    for run in runs:
        groups.setdefault((run.algo, run.env_id), []).append(run)
    cells = {key: {name: summarize([run.result[name] for run in group]) for name in FIGURES} for key, group in groups.items()}
    present = {run.env_id for run in runs}
    env_ids = [*(env_id for env_id in CHANCE if env_id in present), *sorted(present - CHANCE.keys())]
    return Board(runs, ranking(scores_of(runs)), env_ids, cells, read_comparison(results))


def tables(board: Board) -> list[str]:
    """The page's beginning: success, and what it took."""
    best = {(env_id, whole): find_best(board, env_id, whole) for env_id in board.env_ids for whole in (False, True)}
    rows, costs = [], []
    for algo in sorted(board.algos, key=board.sees_scene):  # Stable: the best first among those that see alike.
        seen = "the whole scene" if board.sees_scene(algo) else "glimpses"
        own = {env_id: board.cells.get((algo, env_id)) for env_id in board.env_ids}
        marked = [
            bold(show_success(cell), algo in best[env_id, board.sees_scene(algo)]) if cell else NO_RESULT
            for env_id, cell in own.items()
        ]
        rows.append([algo, seen, "labels" if board.uses_labels(algo) else "reward", *marked])
        costs.append([algo, *(show_cost(cell) if cell else NO_RESULT for cell in own.values())])
    return [
        "# Leaderboard",
        "",
        "Success on the test split in %, greedy, of the model that was best on validation: "
        f"{describe_seeds(board.cells)}. Bold: the best of those that see glimpses, and of those that see the whole scene.",
        "",
        "Those that learn from labels are told the true class of each training image, the others only whether their answer was "
        "right. Where there are no labels, as in Catch, all learn from the reward.",
        "",
        *table(["algorithm", "sees", "learns from", *board.env_ids], rows),
        "",
        "What it took, in the mean: million steps of the environment, CPU seconds of training.",
        "",
        *table(["algorithm", *board.env_ids], costs),
        "",
        "The algorithms:",
        "",
        *(f"- **{algo}**: {board.describe(algo)}" for algo in sorted(board.algos)),
    ]


def aggregates(board: Board, page: Path) -> list[str]:
    """The section on all environments together."""
    scores, lines = scores_of(board.runs), []
    for number, env_ids in enumerate(environment_sets(scores), start=1):
        estimates = estimate_all(scores, env_ids)
        picture = page.with_suffix("") / f"aggregate_{number}.png"
        named = [env_id for env_id in board.env_ids if env_id in env_ids]
        plot_aggregates(estimates, sorted(board.algos), picture, f"Normalised success, {len(named)} environments")
        rows = [[algo, *(show_estimate(own[name]) for name in AGGREGATES)] for algo, own in estimates.items()]
        lines += ["", f"### {', '.join(named)}", "", *table(["algorithm", *AGGREGATES], rows), "", image(picture, page)]
    if not lines:
        return []
    chance = ", ".join(f"{CHANCE.get(env_id, 'not known and taken as 0')} in {env_id}" for env_id in board.env_ids)
    return [
        "",
        "## All environments together",
        "",
        f"Success with chance as 0 and no failure as 1. Chance is {chance}. The interquartile mean is that of the middle half of"
        " all runs; median and mean are of the environments' means; the optimality gap is what is missing to 1. In brackets: 95 %"
        f" confidence, by a stratified bootstrap over the seeds of each environment ({RESAMPLES:,} resamples, percentiles); none"
        " where an environment has one seed.",
        *lines,
    ]


def curves(board: Board, page: Path) -> list[str]:
    """The section of the learning curves."""
    words = "Lines are means over seeds, bands go from the lowest seed to the highest; the marks only tell lines apart."
    lines = ["", "## Learning curves", "", words]
    for env_id in board.env_ids:
        picture = page.with_suffix("") / f"{folder_of(env_id)}.png"
        plot_curves([run for run in board.runs if run.env_id == env_id], sorted(board.algos), picture, env_id)
        lines += ["", image(picture, page)]
    return lines


def origin(board: Board, results: Path, page: Path) -> list[str]:
    """The section on how to have the numbers again."""
    commands = [entry["command"] for entry in board.comparison["commands"]]
    again = f"python benchmarks/leaderboard.py {results} --page {page}"
    facts = {
        "Commit": {run.result["commit"] for run in board.runs},
        "Machine": {run.result["machine"] for run in board.runs},
        "torch": {run.result["torch"] for run in board.runs},
        "Images": {describe_images(run.result) for run in board.runs if "dataset" in run.result},
    }
    return [
        "",
        "## To have these numbers again",
        "",
        *(["```bash", *commands, "```"] if commands else ["The command was not noted."]),
        "",
        *(f"- {name}: {', '.join(sorted(map(str, values)))}" for name, values in facts.items() if values),
        f"- Runs: {len(board.runs)}; each one's settings and its own command are in {link(results, page)}.",
        f"- This page alone: `{again}`",
    ]


def write_csv(board: Board, path: Path) -> None:
    """A row for each algorithm in each environment."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"{name}_{what}" for name in FIGURES for what in ("mean", "deviation")]
        writer.writerow(["algorithm", "environment", "seeds", *columns])
        for algo in board.algos:
            for env_id in board.env_ids:
                if cell := board.cells.get((algo, env_id)):
                    numbers = [number for name in FIGURES for number in (cell[name].mean, cell[name].deviation)]
                    rounded = ["" if number is None else round(number, 6) for number in numbers]
                    writer.writerow([algo, env_id, cell["success_rate"].seeds, *rounded])


def find_best(board: Board, env_id: str, sees_scene: bool) -> set[str]:
    """Who is best in an environment among those that see alike; several where the figures shown are equal."""
    shown = {
        algo: round(100 * board.cells[algo, env_id]["success_rate"].mean, 2)
        for algo in board.algos
        if (algo, env_id) in board.cells and board.sees_scene(algo) == sees_scene
    }
    return {algo for algo, value in shown.items() if value == max(shown.values())}


def describe_seeds(cells: Mapping[tuple[str, str], Mapping[str, Summary]]) -> str:
    """What stands behind a figure."""
    if all(cell["success_rate"].seeds == 1 for cell in cells.values()):
        return "one seed each (in brackets), so that nothing is known of how far seeds differ"
    return "mean ± deviation (of the sample) over the seeds, whose number is in brackets"


if __name__ == "__main__":
    main()
