import csv
import json
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from benchmarks import pictures
from benchmarks.leaderboard import main, write_page
from benchmarks.markdown import show_estimate
from benchmarks.pictures import Panel, common_grid, plot_aggregates, plot_curves, plot_panels
from benchmarks.results import COLUMNS, folder_of, note_comparison, publish, read_comparison, read_runs
from benchmarks.scores import Estimate

COMMAND = "python benchmarks/compare.py --minutes 3"


def finish_run(folder, env_id, algo, seed, success, reward=None):
    """A finished run as train_agent.py leaves it: two evaluations of four episodes."""
    folder.mkdir(parents=True)
    result = {
        "env": env_id,
        "algo": algo,
        "seed": seed,
        "success_rate": success,
        "mean_reward": success,
        "n_timesteps": 2_000_000,
    }
    result |= {
        "train_cpu_seconds": 180.0 + seed,
        "train_seconds": 181.0,
        "commit": "c0ffee",
        "machine": "2 cores",
        "torch": "2.13.0",
    }
    if "MNIST" in env_id:
        result |= {"dataset": "mnist", "dataset_size": 50_000}
    (folder / "result.json").write_text(json.dumps(result))
    successes = np.array([[0, 0, 0, 1], [1, 0, 1, 1]])
    np.savez(
        folder / "evaluations.npz",
        timesteps=[1_000_000, 2_000_000 + 1000 * seed],
        train_seconds=[90.123456, 181.0],
        cpu_seconds=[90.0, 180.0 + seed],
        successes=successes,
        results=successes if reward is None else successes * reward,
        ep_lengths=np.full((2, 4), 7),
    )


def publish_run(results, env_id, algo, seed, success, **kwargs):
    folder = results.parent / "runs" / f"{folder_of(env_id)}_{algo}_{seed}"
    finish_run(folder, env_id, algo, seed, success, **kwargs)
    publish(folder, results / folder_of(env_id) / f"{algo}_seed{seed}")


@pytest.fixture
def results(tmp_path):
    """RAM with two seeds in two environments, PPO with one in one, and a classifier that can't play."""
    results = tmp_path / "results"
    for seed, success in enumerate((0.97, 0.99)):
        publish_run(results, "GlimpseMNIST-v0", "ram", seed, success)
        publish_run(results, "GlimpseCatch-v0", "ram", seed, success - 0.1)
    publish_run(results, "GlimpseCatch-v0", "ppo", 0, 0.5)
    publish_run(results, "GlimpseMNIST-v0", "cnn", 0, 0.995)
    algorithms = {
        name: {"summary": f"What {name} is.", "sees_scene": name == "cnn", "uses_labels": name != "ppo"}
        for name in ("ram", "ppo", "cnn")
    }
    note_comparison(results, COMMAND, ["GlimpseMNIST-v0/ram_seed0"], algorithms)
    return results


def test_a_published_run_is_its_result_and_the_means_of_its_evaluations(results):
    run = next(run for run in read_runs(results) if run.algo == "ppo")
    assert (run.env_id, run.result["success_rate"]) == ("GlimpseCatch-v0", 0.5)
    assert tuple(run.curve) == COLUMNS
    assert run.curve["timesteps"].tolist() == [1e6, 2e6]
    assert run.curve["train_seconds"].tolist() == [90.12, 181.0]
    assert run.curve["success"].tolist() == run.curve["reward"].tolist() == [0.25, 0.75]
    assert run.curve["length"].tolist() == [7, 7]
    assert [(run.env_id, run.algo, run.result["seed"]) for run in read_runs(results)][:3] == [
        ("GlimpseCatch-v0", "ppo", 0),
        ("GlimpseCatch-v0", "ram", 0),
        ("GlimpseCatch-v0", "ram", 1),
    ]


def test_a_command_takes_the_place_of_those_whose_runs_it_made(tmp_path):
    note_comparison(tmp_path, "first", ["a", "b"], {"ram": {"summary": "old", "sees_scene": False}})
    note_comparison(tmp_path, "other", ["c"], {"ppo": {"summary": "new", "sees_scene": False}})
    note_comparison(tmp_path, "again", ["a", "b", "d"], {})
    note_comparison(tmp_path, "a part of it", ["d"], {})
    comparison = read_comparison(tmp_path)
    assert [entry["command"] for entry in comparison["commands"]] == ["other", "again"]
    assert set(comparison["algorithms"]) == {"ram", "ppo"}


def test_the_page_holds_the_figures_and_where_they_come_from(results, tmp_path):
    page = tmp_path / "docs" / "leaderboard.md"
    write_page(results, page)
    text = page.read_text()
    # The classifier stands below, whatever it reached, and is the best of its kind.
    assert "| ram | glimpses | labels | **98.00 ± 1.41 (2)** | **88.00 ± 1.41 (2)** |\n" in text
    assert "| ppo | glimpses | reward | – | 50.00 (1) |" in text
    assert "| cnn | the whole scene | labels | **99.50 (1)** | – |" in text
    assert "| ram | 2 M, 180 s | 2 M, 180 s |" in text
    assert "- **cnn**: What cnn is." in text
    # Chance is 0 and no failure 1; of four runs the middle two count.
    middle = sorted([(0.97 - 0.1) / 0.9, (0.99 - 0.1) / 0.9, (0.87 - 0.082) / 0.918, (0.89 - 0.082) / 0.918])[1:3]
    assert f"| ram | {np.mean(middle):.3f} [" in text
    assert "### GlimpseMNIST-v0, GlimpseCatch-v0" in text
    assert COMMAND in text and "c0ffee" in text and "mnist, 50,000 to learn from" in text
    pictures_of_page = re.findall(r"!\[.*\]\((.*)\)", text)
    assert pictures_of_page == [f"leaderboard/{name}.png" for name in ("aggregate_1", "GlimpseMNIST-v0", "GlimpseCatch-v0")]
    for picture in pictures_of_page:
        assert (page.parent / picture).stat().st_size > 10_000


def test_the_numbers_come_as_csv_too(results, tmp_path):
    main([str(results), "--page", str(tmp_path / "board.md")])
    with (tmp_path / "board.csv").open(newline="") as file:
        rows = {(row["algorithm"], row["environment"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4
    ram, ppo = rows["ram", "GlimpseMNIST-v0"], rows["ppo", "GlimpseCatch-v0"]
    assert (ram["seeds"], ram["success_rate_mean"], ram["success_rate_deviation"]) == ("2", "0.98", "0.014142")
    assert (ram["train_cpu_seconds_mean"], ram["n_timesteps_mean"]) == ("180.5", "2000000.0")
    assert (ppo["seeds"], ppo["success_rate_mean"], ppo["success_rate_deviation"]) == ("1", "0.5", "")


def test_one_seed_is_called_so(tmp_path):
    publish_run(tmp_path / "results", "GlimpseMNIST-v0", "ram", 0, 0.97)
    write_page(tmp_path / "results", tmp_path / "board.md")
    text = (tmp_path / "board.md").read_text()
    assert "one seed each" in text
    assert "All environments together" not in text
    assert "The command was not noted." in text
    assert "- **ram**: no description" in text


def test_environments_of_ones_own_have_no_chance_and_a_name_for_the_disk(tmp_path):
    for env_id in ("mine/Own-v0", "GlimpseMNIST-v0"):
        publish_run(tmp_path / "results", env_id, "ram", 0, 0.97)
    write_page(tmp_path / "results", tmp_path / "board.md")
    assert "Chance is 0.1 in GlimpseMNIST-v0, not known and taken as 0 in mine/Own-v0." in (tmp_path / "board.md").read_text()
    assert (tmp_path / "board" / "mine_Own-v0.png").exists()


def test_a_folder_without_results_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nothing")])
    assert "nothing" in capsys.readouterr().err


def test_estimates_in_words():
    assert show_estimate(Estimate(0.5, (0.25, 0.75))) == "0.500 [0.250, 0.750]"
    assert show_estimate(Estimate(0.5, None)) == "0.500"


def test_seeds_are_compared_where_all_of_them_are():
    curves = [
        {"cpu_seconds": np.array([0.0, 10.0]), "success": np.array([0.0, 1.0])},
        {"cpu_seconds": np.array([5.0, 20.0]), "success": np.array([0.5, 0.5])},
    ]
    where, values = common_grid(curves, "cpu_seconds", "success")
    assert (where[0], where[-1]) == (5, 10)
    assert values[0].tolist() == pytest.approx((where / 10).tolist())
    assert (values[1] == 0.5).all()
    where, values = common_grid([curves[0], {name: array + 15 for name, array in curves[1].items()}], "cpu_seconds", "success")
    assert where.tolist() == [22.5]
    assert values.tolist() == [[1.0], [15.5]]


def axes_of(monkeypatch, draw):
    """The axes of a picture that is drawn."""
    figures = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: figures.append(figure))
    draw()
    return figures[0].axes, figures[0]


def test_curves_have_a_band_and_a_style_for_each_algorithm(results, monkeypatch, tmp_path):
    runs = [run for run in read_runs(results) if run.env_id == "GlimpseCatch-v0"]
    axes, figure = axes_of(monkeypatch, lambda: plot_curves(runs, ["cnn", "ppo", "ram"], tmp_path / "x.png", "Catch"))
    assert [axis.get_xlabel() for axis in axes] == ["million steps of the environment", "CPU minutes of training"]
    assert axes[0].get_ylabel().startswith("success on validation, %")
    assert [line.get_ydata()[-1] for line in axes[0].get_lines()] == pytest.approx([75, 75], abs=0.1)
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes[0].get_lines()}) == 2
    assert len(axes[0].collections) == 2
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"ram", "ppo"}


def test_a_reward_of_its_own_is_drawn_too(tmp_path, monkeypatch):
    publish_run(tmp_path / "results", "Own-v0", "ram", 0, 0.97, reward=-3)
    axes, _ = axes_of(monkeypatch, lambda: plot_curves(read_runs(tmp_path / "results"), ["ram"], tmp_path / "x.png", "Own"))
    assert [axis.get_ylabel() for axis in axes] == ["success on validation, %", "", "reward on validation", ""]
    assert axes[3].get_lines()[0].get_ydata()[-1] == pytest.approx(-2.25)


def test_aggregates_have_bars_where_there_are_intervals(monkeypatch, tmp_path):
    estimates = {"ram": {"mean": Estimate(0.5, (0.25, 0.75))}, "ppo": {"mean": Estimate(0.4, None)}}
    axes, _ = axes_of(monkeypatch, lambda: plot_aggregates(estimates, ["ppo", "ram"], tmp_path / "x.png", "All"))
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["ram", "ppo"]
    bars = [container.has_xerr for container in axes[0].containers]
    assert bars == [True, False]


def test_panels_have_the_error_and_what_it_is_to_be_compared_with(monkeypatch, tmp_path):
    seeds = [{"cpu_seconds": np.array([60.0, 120.0]), "success": np.array([0.9, last])} for last in (0.98, 0.96)]
    levels = {"the paper (test)": 4.0, "goal (test)": 1.0}
    panels = [Panel("A", {"best": seeds}, levels), Panel("B", {"best": seeds[:1]}, {}, "success")]
    panels += [Panel("C", {"best": [{**seeds[0], "success": np.array([0.9, 1.0])}]}, {})] * 2
    axes, _ = axes_of(monkeypatch, lambda: plot_panels(panels, tmp_path / "x.png"))
    assert [axis.get_title() for axis in axes] == ["A", "B", "C", "C"]
    curve, paper, goal = axes[0].get_lines()
    assert curve.get_xdata()[[0, -1]] == pytest.approx([1, 2])
    assert curve.get_ydata()[[0, -1]] == pytest.approx([10, 3])
    assert (paper.get_ydata()[0], goal.get_ydata()[0]) == (4, 1)
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["best", *levels]
    # No error at all has no place on a logarithmic scale.
    assert [axis.get_yscale() for axis in axes] == ["log", "linear", "linear", "linear"]
    assert axes[1].get_lines()[0].get_ydata()[-1] == pytest.approx(98)


def test_many_algorithms_all_look_different():
    styles = [pictures.style_of(number) for number in range(28)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 28
    assert len({style["marker"] for style in styles[:14]}) == 14
