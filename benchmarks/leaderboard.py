"""Make the page of a comparison out of its published results: tables, aggregates, learning curves, and how to repeat it.

python benchmarks/leaderboard.py results/comparison.jsonl --page docs/leaderboard.md

The pictures of the page go into a folder of its name beside it. `python benchmarks/compare.py` makes the page after its runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # A script finds only what lies beside it.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ram_envs.benchmarks.paper_tables import NO_RESULT, show_spread
from ram_envs.benchmarks.plots import plot_aggregates, plot_curves, save_plot
from ram_envs.benchmarks.results import Row, folder_of, read_results
from ram_envs.benchmarks.scores import (
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
from ram_envs.benchmarks.tables import image, link, markdown_table

# What an algorithm sees and is told in an environment: in a table like is compared with like.
KINDS = {
    "Glimpses, reward alone": "They are told whether their answer was right, or the ball caught, nothing else.",
    "Glimpses and labels": "They are told the true class of each training image.",
    "The whole scene and labels": "What can be reached without a narrow gaze.",
}
FIGURES = ("success_rate", "n_timesteps", "train_cpu_seconds")  # Of a result, in the page's tables.


@dataclass(frozen=True)
class Board:
    """The content of the page."""

    results: list[Row]
    algos: list[str]  # The best first.
    env_ids: list[str]
    summaries: dict[tuple[str, str], dict[str, Summary]]  # For an algorithm and an environment each of `FIGURES` over the seeds.
    rows: dict[tuple[str, str], Row]  # For the same a row, which has `ram_envs.benchmarks.compare.FACTS`.

    def of_kind(self, kind: str) -> dict[str, list[str]]:
        """The algorithms of one of `KINDS`, each with the environments where it is of that kind."""
        reward, labels, whole = KINDS
        found: dict[str, list[str]] = {}
        for algo in self.algos:
            for env_id in self.env_ids:
                row = self.rows.get((algo, env_id), {})
                is_told = row.get("uses_labels") and "dataset" in row  # Without images there are no labels.
                if row and kind == (whole if row.get("sees_scene") else labels if is_told else reward):
                    found.setdefault(algo, []).append(env_id)
        return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the table that compare.py --results filled")
    parser.add_argument("--page", type=Path, default=Path("leaderboard.md"), help="where to write (default: leaderboard.md)")
    options = parser.parse_args(arguments)
    try:
        write_page(options.results, options.page)
    except FileNotFoundError as error:
        parser.error(str(error))
    print(f"Leaderboard: {options.page}")


def write_page(results: Path, page: Path) -> None:
    """Write the page (.md) and its pictures, in a folder of the same name."""
    board = read_board(results)
    page.parent.mkdir(parents=True, exist_ok=True)
    sections = [*tables(board), *aggregates(board, page), *curves(board, page), *origin(board, results, page)]
    page.write_text("\n".join(sections) + "\n", "utf-8")


def read_board(path: Path) -> Board:
    results = read_results(path)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in results:
        groups.setdefault((row["algo"], row["env"]), []).append(row)
    summaries = {key: {name: summarize([row[name] for row in group]) for name in FIGURES} for key, group in groups.items()}
    present = {row["env"] for row in results}
    env_ids = [*(env_id for env_id in CHANCE if env_id in present), *sorted(present - CHANCE.keys())]
    return Board(results, ranking(scores_of(results)), env_ids, summaries, {key: group[0] for key, group in groups.items()})


def tables(board: Board) -> list[str]:
    """The first section: success, one table for each kind of algorithm, and the cost of training."""
    lines = [
        "# Leaderboard",
        "",
        "Success on the test split in %, greedy, of the model that was best on validation: "
        f"{describe_seeds(board)}. Bold: the best of a table. Half-way from chance to perfect are "
        f"{', '.join(f'{half_way(env_id)} in {env_id}' for env_id in board.env_ids)}.",
    ]
    for kind, words in KINDS.items():
        places = board.of_kind(kind)
        env_ids = [env_id for env_id in board.env_ids if any(env_id in own for own in places.values())]
        rows = [[algo, *(show_success(board, algo, env_id, places) for env_id in env_ids)] for algo in places]
        lines += ["", f"## {kind}", "", words, "", *markdown_table(["algorithm", *env_ids], rows)] if rows else []
    said = {algo: row.get("summary") for (algo, _), row in board.rows.items()}
    costs = [[algo, *(show_cost(board, algo, env_id) for env_id in board.env_ids)] for algo in board.algos]
    return [
        *lines,
        "",
        "## Cost",
        "",
        "A mean over seeds: million steps of the environment, CPU seconds of training.",
        "",
        *markdown_table(["algorithm", *board.env_ids], costs),
        "",
        "## The algorithms",
        "",
        *(f"- **{algo}**: {summary or 'no description'}" for algo, summary in sorted(said.items())),
    ]


def half_way(env_id: str) -> str:
    """Such as "55.0 %"."""
    return f"{50 * (1 + CHANCE.get(env_id, 0.0)):.1f} %"


def aggregates(board: Board, page: Path) -> list[str]:
    """The section on all environments together."""
    scores, lines = scores_of(board.results), []
    for number, env_ids in enumerate(environment_sets(scores), start=1):
        estimates = estimate_all(scores, env_ids)
        picture = page.with_suffix("") / f"aggregate_{number}.png"
        named = [env_id for env_id in board.env_ids if env_id in env_ids]
        save_plot(plot_aggregates(estimates, sorted(board.algos), f"Normalised success, {len(named)} environments"), picture)
        rows = [[algo, *(str(own[name]) for name in AGGREGATES)] for algo, own in estimates.items()]
        lines += ["", f"### {', '.join(named)}", "", *markdown_table(["algorithm", *AGGREGATES], rows), "", image(picture, page)]
    if not lines:
        return []
    chance = ", ".join(f"{CHANCE.get(env_id, 'not known and taken as 0')} in {env_id}" for env_id in board.env_ids)
    return [
        "",
        "## All environments together",
        "",
        f"Success with chance as 0 and no failure as 1. Chance is {chance}. The interquartile mean is that of the middle half of"
        " all runs; median and mean are of the environments' means; the optimality gap is the mean distance to 1. In brackets:"
        f" the 95 % confidence interval, by a stratified bootstrap over the seeds of each environment ({RESAMPLES:,} resamples,"
        " percentiles); none where an environment has one seed.",
        *lines,
    ]


def curves(board: Board, page: Path) -> list[str]:
    """The section of the learning curves."""
    words = "Lines are means over seeds, bands go from the lowest seed to the highest; the marks only tell lines apart."
    lines = ["", "## Learning curves", "", words]
    for env_id in board.env_ids:
        picture = page.with_suffix("") / f"{folder_of(env_id)}.png"
        own = [row for row in board.results if row["env"] == env_id]
        save_plot(plot_curves(own, sorted(board.algos), env_id), picture)
        lines += ["", image(picture, page)]
    return lines


def origin(board: Board, results: Path, page: Path) -> list[str]:
    """The section on how to repeat the comparison."""
    rows = board.results
    commands = dict.fromkeys(row["comparison_command"] for row in rows if "comparison_command" in row)
    facts = {
        "Commit": {row["commit"] for row in rows},
        "Machine": {row["machine"] for row in rows},
        "torch": {row["torch"] for row in rows},
        "Images": {f"{row['dataset']}, {row['dataset_size']:,} to learn from" for row in rows if "dataset" in row},
    }
    return [
        "",
        "## How to repeat it",
        "",
        *(["At the commit below:", "", "```bash", *commands, "```"] if commands else ["The command was not noted."]),
        "",
        *(f"- {name}: {', '.join(sorted(map(str, values)))}" for name, values in facts.items() if values),
        f"- Runs: {len(rows)}; the hyperparameters, the command and the learning curve of each are in {link(results, page)}.",
        f"- This page alone: `python benchmarks/leaderboard.py {results} --page {page}`",
    ]


def find_best(board: Board, env_id: str, algos: Sequence[str]) -> set[str]:
    """The best of some algorithms in an environment; several where the figures shown are equal."""
    shown = {algo: round(100 * board.summaries[algo, env_id]["success_rate"].mean, 2) for algo in algos}
    return {algo for algo, value in shown.items() if value == max(shown.values())}


def describe_seeds(board: Board) -> str:
    """What the figures are means of."""
    if all(own["success_rate"].seeds == 1 for own in board.summaries.values()):
        return "one seed each (in brackets), so that the spread over seeds is not known"
    return "mean ± deviation (of the sample) over the seeds, whose number is in brackets"


def show_success(board: Board, algo: str, env_id: str, places: Mapping[str, Sequence[str]]) -> str:
    """Such as "98.70 ± 0.11 (3)", bold for the best of the algorithms that have the environment among their `places`."""
    if env_id not in places[algo]:
        return NO_RESULT
    success = board.summaries[algo, env_id]["success_rate"]
    text = f"{show_spread(success, 100)} ({success.seeds})"
    others = [other for other, env_ids in places.items() if env_id in env_ids]
    return f"**{text}**" if algo in find_best(board, env_id, others) else text


def show_cost(board: Board, algo: str, env_id: str) -> str:
    """Such as "2.31 M, 300 s"."""
    if (algo, env_id) not in board.summaries:
        return NO_RESULT
    own = board.summaries[algo, env_id]
    return f"{own['n_timesteps'].mean / 1e6:.3g} M, {own['train_cpu_seconds'].mean:.0f} s"


if __name__ == "__main__":
    main()
