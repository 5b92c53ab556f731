import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytest.importorskip("torch")

from finished_runs import publish_run

from ram_envs.benchmarks.plots import Panel, common_grid, plot_aggregates, plot_curves, plot_panels, save_plot, style_of
from ram_envs.benchmarks.results import read_results
from ram_envs.benchmarks.scores import Estimate

CATCH = "GlimpseCatch-v0"


@pytest.fixture
def table(tmp_path):
    """Two seeds of RAM and one of PPO."""
    table = tmp_path / "results.jsonl"
    for run, algo, seed in (("ram_seed0", "ram", 0), ("ram_seed1", "ram", 1), ("ppo_seed0", "ppo", 0)):
        publish_run(table, run, CATCH, algo=algo, seed=seed)
    return table


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


def test_curves_have_a_band_and_a_style_for_each_algorithm(table):
    figure = plot_curves(read_results(table), ["cnn", "ppo", "ram"], "Catch")
    axes = figure.axes
    assert [axis.get_xlabel() for axis in axes] == ["million steps of the environment", "CPU minutes of training"]
    assert axes[0].get_ylabel().startswith("success on validation, %")
    assert [line.get_ydata()[-1] for line in axes[0].get_lines()] == pytest.approx([75, 75], abs=0.1)
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes[0].get_lines()}) == 2
    assert len(axes[0].collections) == 2
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"ram", "ppo"}


def test_a_reward_of_its_own_is_drawn_too(tmp_path):
    publish_run(tmp_path / "own.jsonl", "ram_seed0", "Own-v0", reward=-3)
    axes = plot_curves(read_results(tmp_path / "own.jsonl"), ["ram"], "Own").axes
    assert [axis.get_ylabel() for axis in axes] == ["success on validation, %", "", "reward on validation", ""]
    assert axes[3].get_lines()[0].get_ydata()[-1] == pytest.approx(-2.25)


def test_aggregates_have_bars_where_there_are_intervals():
    estimates = {"ram": {"mean": Estimate(0.5, (0.25, 0.75))}, "ppo": {"mean": Estimate(0.4, None)}}
    [axis] = plot_aggregates(estimates, ["ppo", "ram"], "All").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ram", "ppo"]
    assert [container.has_xerr for container in axis.containers] == [True, False]


def test_panels_have_the_error_and_the_figures_beside_it():
    seeds = [{"cpu_seconds": np.array([60.0, 120.0]), "success": np.array([0.9, last])} for last in (0.98, 0.96)]
    levels = {"the paper (test)": 4.0, "goal (test)": 1.0}
    panels = [Panel("A", {"best": seeds}, levels), Panel("B", {"best": seeds[:1]}, {}, "success")]
    panels += [Panel("C", {"best": [{**seeds[0], "success": np.array([0.9, 1.0])}]}, {})] * 2
    axes = plot_panels(panels).axes
    assert [axis.get_title() for axis in axes] == ["A", "B", "C", "C"]
    curve, paper, goal = axes[0].get_lines()
    assert curve.get_xdata()[[0, -1]] == pytest.approx([1, 2])
    assert curve.get_ydata()[[0, -1]] == pytest.approx([10, 3])
    assert (paper.get_ydata()[0], goal.get_ydata()[0]) == (4, 1)
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["best", *levels]
    # No error at all has no place on a logarithmic scale.
    assert [axis.get_yscale() for axis in axes] == ["log", "linear", "linear", "linear"]
    assert axes[1].get_lines()[0].get_ydata()[-1] == pytest.approx(98)


def test_a_plot_is_saved_in_a_folder_that_is_made(tmp_path):
    save_plot(plot_panels([Panel("A", {}, {"goal": 1.0})]), tmp_path / "images" / "a.png")
    assert (tmp_path / "images" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_many_algorithms_all_look_different():
    styles = [style_of(number) for number in range(28)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 28
    assert len({style["marker"] for style in styles[:14]}) == len({style["color"] for style in styles[:14]}) == 14
