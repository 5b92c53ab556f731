import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("scipy")

from finished_runs import publish_run

from ram_envs.benchmarks.paper import TASKS, entry_of, gather
from ram_envs.benchmarks.paper_tables import (
    attention_table,
    first_reach,
    further_table,
    glimpses_table,
    main_table,
    others_table,
    panels,
    runs_table,
    show_commit,
    show_shortfall,
    speed_table,
)
from ram_envs.benchmarks.results import PROJECT, add_results, read_results
from ram_envs.benchmarks.scores import Summary
from ram_envs.benchmarks.tables import image, link, main, markdown_table, replace_block

MNIST, TRANSLATED, CATCH = "GlimpseMNIST-v0", "GlimpseTranslatedMNIST-v0", "GlimpseCatch-v0"
PAGE = "Before.\n\n<!-- tables: begin -->\nold\n<!-- tables: end -->\n\nAfter.\n"


def make_result(env_id, seed, error, algo="ram", preset="best", length=7, machine="2 cores, cpu", commit=40 * "a", **env_kwargs):
    row = {"env": env_id, "algo": algo, "preset": preset, "seed": seed, "test_error": error, "env_kwargs": env_kwargs}
    row |= {"validation_error": error - 0.01, "n_timesteps": 7_000_000, "train_cpu_seconds": 60.4}
    row |= {"commit": commit, "machine": machine, "curve": {"length": [length, length]}}
    if env_id != CATCH:
        row |= {"dataset": "mnist", "dataset_size": 50_000}
    return {**row, "run": entry_of(row).run(seed)}


def entries_of(*results):
    entries, left_out = gather(results)
    assert not left_out
    return entries


def rows_of(table, name):
    """The cells behind the task's name."""
    return [list(row[1:]) for row in table.rows if row[0].startswith(name)]


def test_without_runs_there_are_the_figures_of_others():
    table = main_table({})
    assert table.header[-4:] == ["faithful", "best", "blind", "against the goal"]
    assert rows_of(table, "MNIST") == [["7", "1.07", "0.67", "0.45", "–", "–", "–", "–"]]
    assert rows_of(table, "Catch") == [["24", "85", "89", "99", "–", "–", "–", "–"]]
    assert len(table.rows) == 5
    assert rows_of(others_table({}), "Translated") == [
        ["FC 2x64", "6.42", "–"],
        ["FC 2x256", "2.63", "–"],
        ["convolutional", "1.62", "–"],
    ]


def test_means_deviations_and_shortfalls():
    # Deviations of the sample: root((0.03^2 + 0.01^2 + 0.02^2) / 2) = 0.026, and 1.
    errors = {MNIST: (0.43, 0.47, 0.48), CATCH: (0.0, 1.0, 2.0)}
    made = [make_result(env_id, seed, error) for env_id, own in errors.items() for seed, error in enumerate(own)]
    table = main_table(entries_of(*made, make_result(MNIST, 0, 1.02, preset="paper"), make_result(TRANSLATED, 1, 0.92)))
    assert rows_of(table, "MNIST")[0][-4:] == ["1.02 (1 seed)", "0.46 ± 0.03 (3 seeds)", "–", "misses by 0.01"]
    assert rows_of(table, "Translated")[0][-4:] == ["–", "0.92 (1 seed)", "–", "misses by 0.47 (1 of 3 seeds)"]
    assert rows_of(table, "Catch")[0][-4:] == ["–", "99.00 ± 1.00 (3 seeds)", "–", "reached"]


def test_what_the_best_reach_without_their_looks():
    blind = [{**make_result(CATCH, seed, 1.0), "error_along_mean_path": error} for seed, error in enumerate((20.0, 30.0))]
    attention = [make_attention(CATCH, 1.0, 25.19, 30.0), make_attention(MNIST, 0.59, 0.53, 1.0)]
    table = main_table(entries_of(*blind, make_result(MNIST, 0, 0.5)), attention)
    assert rows_of(table, "Catch")[0][-2] == "75.00 ± 7.07"  # Balls caught.
    assert rows_of(table, "MNIST")[0][-2] == "0.53 (pretrained)"
    table = main_table(entries_of(blind[0], make_result(CATCH, 1, 1.0)), attention)  # Of one run it is not known.
    assert rows_of(table, "Catch")[0][-2] == "74.81 (pretrained)"


def test_beyond_the_papers_tables():
    made = make_result(CATCH, 0, 2.0, preset="random", paddle_start="random", initial_location="random")
    table = further_table(entries_of({**made, "error_along_mean_path": 60.0}))
    command = f"`--env {CATCH} --preset random`"
    assert rows_of(table, "Catch") == [[command, "–", "99", "98.00 (1 seed)", "40.00", "misses by 1.00 (1 of 3 seeds)"]]
    commands = [row[0] for row in rows_of(table, "MNIST")]
    assert commands == [f"`--env {MNIST} --preset {preset}`" for preset in ("adaptive", "center")]
    assert rows_of(table, "MNIST")[0][1:] == ["1.51", "1.51", "–", "–", "–"]


@pytest.mark.parametrize(
    ("env_id", "mean", "shown"),
    [
        (MNIST, np.mean([0.44, 0.45, 0.46]), "reached"),
        (MNIST, 0.4533, "misses by less than 0.01"),
        (MNIST, 0.456, "misses by 0.01"),
        (CATCH, 98.5, "misses by 0.50"),
        (CATCH, 99.5, "reached"),
    ],
)
def test_how_far_from_the_goal(env_id, mean, shown):
    assert show_shortfall(TASKS[env_id], Summary(mean, 0.1, 3)) == shown


def test_fewer_glimpses_and_other_models():
    entries = entries_of(
        make_result(MNIST, 0, 0.7, preset="paper", num_glimpses=6),
        make_result(MNIST, 0, 0.6),
        make_result(MNIST, 0, 0.65, num_glimpses=2),
        make_result(MNIST, 0, 1.5, algo="conv", preset=None, num_scales=1, num_glimpses=1),
    )
    rows = rows_of(glimpses_table(entries), "MNIST")
    assert rows[0] == ["2", "3.79", "–", "0.65 (1 seed)"]
    assert rows[-2:] == [["6", "1.12", "0.70 (1 seed)", "–"], ["7", "1.07", "–", "0.60 (1 seed)"]]
    assert not rows_of(glimpses_table(entries), "Catch")
    assert rows_of(others_table(entries), "MNIST") == [["FC 2x256", "1.69", "–"], ["convolutional", "1.21", "1.50 (1 seed)"]]


def test_the_runs_behind_each_entry():
    entries = entries_of(
        make_result(CATCH, 0, 1.0, length=23),
        make_result(MNIST, 1, 0.61, commit=40 * "b" + "-dirty", machine="16 cores, cuda, then 2 cores, cpu"),
        make_result(MNIST, 0, 0.63),
        make_result(MNIST, 0, 1.5, algo="conv", preset=None, length=1),
        make_result(MNIST, 0, 0.7, length=2, num_glimpses=2),
    )
    table = runs_table(entries)
    commits = "`aaaaaaaaaa`, `bbbbbbbbbb-dirty`"
    assert table.rows == [
        [MNIST, "ram_best", "0, 1", "0.61 ± 0.01", "0.62 ± 0.01", "60 + GPU", "20", commits],
        [MNIST, "ram_best_2glimpses", "0", "0.69", "0.70", "60", "70", "`aaaaaaaaaa`"],  # 3.5 million images.
        [MNIST, "conv", "0", "1.49", "1.50", "60", "140", "`aaaaaaaaaa`"],
        [CATCH, "ram_best", "0", "99.01", "99.00", "60", "7.0 M frames", "`aaaaaaaaaa`"],
    ]
    assert len(table.header) == 8
    assert show_commit(None) == "–"


def test_how_soon_the_papers_figure_is_reached():
    curve = {"timesteps": np.array([1e6, 2e6, 4e6]), "cpu_seconds": np.array([10.0, 20.0, 40.0])}
    curve["success"] = np.array([0.98, 0.9893, 0.995])
    assert first_reach(curve, 1.07, False) == (2e6, 20.0)  # An error of at most 1.07 %.
    assert first_reach(curve, 98.0, True) == (1e6, 10.0)  # At least 98 % caught.
    assert first_reach(curve, 0.4, False) is None
    rows = []
    for seed, success in enumerate(([0.98, 0.99, 0.99], [0.98, 0.98, 0.99])):
        own = {"success": success, "timesteps": [1e6, 2e6, 4e6], "cpu_seconds": [10, 20, 41]}
        rows.append({**make_result(MNIST, seed, 1.0), "curve": own})
    table = speed_table(entries_of(*rows))
    assert rows_of(table, "MNIST") == [["1.07", "3.00 ± 1.41", "30"]]
    assert rows_of(table, "Catch") == [["85", "–", "–"]]
    rows[0]["curve"]["success"] = [0.5, 0.5, 0.5]  # A run that does not get there.
    assert rows_of(speed_table(entries_of(*rows)), "MNIST") == [["1.07", "–", "–"]]


def test_curves_say_where_a_gpu_took_part():
    machines = ["2 cores, cpu", "2 cores, cpu", "16 cores, cuda", "16 cores, cuda, then 2 cores, cpu"]
    results = [make_result(MNIST, seed, 0.5, machine=machine) for seed, machine in enumerate(machines)]
    shown = [list(panels(entries_of(*group))[0].curves) for group in (results[:1], results[:2], results[1:3], results[3:])]
    assert shown == [["best (1 seed)"], ["best (2 seeds)"], ["best (2 seeds, with a GPU)"], ["best (1 seed, with a GPU)"]]


def make_attention(env_id, own, mean_path, another):
    row = {"env": env_id, "run": "pretrained_looks", "error": own, "error_along_mean_path": mean_path}
    return {**row, "error_at_anothers_looks": another}


def test_what_attention_is_worth():
    table = attention_table([make_attention(CATCH, 1.5, 40, 60), make_attention(MNIST, 0.5949, 0.53, 1.1)])
    assert table.header == ["task", "its own looks", "mean path", "another's looks"]
    assert rows_of(table, "MNIST") == [["0.59", "0.53", "1.10"]]
    assert rows_of(table, "Catch") == [["98.50", "60.00", "40.00"]]  # Balls caught.
    assert len(table.rows) == 2


def test_links_pictures_and_tables_in_markdown():
    page = Path("docs/a.md")
    assert link(Path("results/b.jsonl"), page) == "[b.jsonl](../results/b.jsonl)"
    assert image(Path("docs/images/c.png"), page) == "![c](images/c.png)"
    assert image(Path("docs/images/c.png"), page, "a curve") == "![a curve](images/c.png)"
    assert markdown_table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_a_block_is_replaced_and_all_around_it_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x: begin -->\nold\n\n<!-- y: begin -->\n<!-- x: end -->\nb\n", encoding="utf-8")
    replaced = replace_block(page, "x", ["new", "lines"])
    assert replaced == "a\n<!-- x: begin -->\n\nnew\nlines\n\n<!-- x: end -->\nb\n"
    page.write_text(replaced, encoding="utf-8")
    assert replace_block(page, "x", ["new", "lines"]) == replaced


@pytest.mark.parametrize(
    "text",
    [
        "<!-- x: end -->\n<!-- x: begin -->\n",
        "<!-- x: begin -->\n",
        "<!-- x: begin -->\n<!-- x: end -->\n<!-- x: end -->\n",
        "<!-- y: begin -->\n<!-- y: end -->\n",
    ],
)
def test_a_block_that_is_not_there_once(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"must hold a line <!-- x: begin --> and after it a line <!-- x: end -->, each once"):
        replace_block(page, "x", [])


def test_the_checked_in_pages_agree_with_the_checked_in_results(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().out
    for page in ("README.md", "docs/results.md"):
        path = PROJECT / page
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", path.read_text("utf-8")):
            assert (path.parent / picture).is_file(), f"{page}: {picture}"


@pytest.fixture
def project(tmp_path):
    """A folder with two pages and no runs."""
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/results.md"):
        (tmp_path / name).write_text(PAGE, encoding="utf-8")
    return tmp_path


def run_tables(project, *options):
    return main(["--project", str(project), *options])


def publish(project, env_id, run, seed, error, preset="best", **changes):
    publish_run(project / "results" / "tables.jsonl", run, env_id, seed=seed, error=error, preset=preset, **changes)


def test_without_runs_the_tables_are_there(project, capsys):
    assert run_tables(project) == 0
    out = capsys.readouterr().out
    assert re.search(r"MNIST 28x28.* 7 .* 1\.07 .* 0\.67 .* 0\.45 .* – .* – .* – ", out)
    assert "Fewer glimpses" in out and "Other models" in out
    assert run_tables(project, "--write") == 0
    text = (project / "docs/results.md").read_text("utf-8")
    assert "| Catch, balls caught | 24 | 85 | 89 | 99 | – | – | – |" in text
    assert "The runs" not in text and "Learning curves" not in text
    assert not list(project.rglob("*.png"))


def test_what_is_written_and_writing_again_changes_nothing(project, capsys):
    for seed, error in enumerate((0.5, 0.6)):
        publish(project, MNIST, f"ram_best_seed{seed}", seed, error)
    publish(project, CATCH, "ram_paper_seed0", 0, 12.5, preset="paper")
    assert run_tables(project, "--check") == 1
    assert "results.md is out of date: run python benchmarks/tables.py --write" in capsys.readouterr().out
    assert run_tables(project, "--write") == 0
    readme, docs = ((project / name).read_text("utf-8") for name in ("README.md", "docs/results.md"))
    mnist = (
        "| MNIST 28x28, 8x8, 1 scale | 7 | 1.07 | 0.67 | 0.45 | – | 0.55 ± 0.07 (2 seeds) | – | misses by 0.10 (2 of 3 seeds) |"
    )
    catch = "| Catch, balls caught | 24 | 85 | 89 | 99 | 87.50 (1 seed) | – | – | – |"
    for text in (readme, docs):
        assert text.startswith("Before.\n\n<!-- tables: begin -->\n") and text.endswith("\n<!-- tables: end -->\n\nAfter.\n")
        assert mnist in text and catch in text and "old" not in text
    assert "Other models" in docs and "Other models" not in readme
    assert "| GlimpseMNIST-v0 | ram_best | 0, 1 | 0.55 ± 0.07 | 0.55 ± 0.07 | 180 | 20 | `c0ffee` |" in docs
    assert "[tables.jsonl](../results/tables.jsonl)" in docs
    assert re.findall(r"!\[.*\]\((.*?)\)", docs) == ["images/tables.png"]
    files = [*project.rglob("*.md"), *project.rglob("*.png")]
    assert [path.name for path in files] == ["README.md", "results.md", "tables.png"]
    before = [path.read_bytes() for path in files]
    run_tables(project, "--write")
    assert [path.read_bytes() for path in files] == before
    assert run_tables(project, "--check") == 0


def test_what_attention_is_worth_stands_in_the_docs_alone(project, capsys):
    add_results(project / "results" / "attention.jsonl", [make_attention(MNIST, 0.59, 0.53, 1.1)])
    assert run_tables(project) == 0
    assert "What attention is worth" in capsys.readouterr().out
    assert run_tables(project, "--write") == 0
    readme, docs = ((project / name).read_text("utf-8") for name in ("README.md", "docs/results.md"))
    assert (
        "| MNIST 28x28, 8x8, 1 scale | 0.59 | 0.53 | 1.10 |" in docs and "[attention.jsonl](../results/attention.jsonl)" in docs
    )
    assert "another's looks" not in readme and "| – | 0.53 (pretrained) | – |" in readme


def test_attention_is_measured_by_the_command(project, monkeypatch, capsys):
    pytest.importorskip("torch")
    from ram_envs.agents import pretrained_ids
    from ram_envs.agents.training import looks

    measured = []

    def show_looks(model, env_id, env_kwargs, out, split, index):
        measured.append((env_id, split))
        assert out == project / "docs" / "images"
        return make_attention(env_id, 1, 2, 3) | {"pictures": []}

    monkeypatch.setattr(looks, "show_looks", show_looks)
    assert run_tables(project, "--attention") == 0
    assert measured == [(env_id, "test") for env_id in pretrained_ids()]
    rows = read_results(project / "results" / "attention.jsonl")
    assert [row["env"] for row in rows] == sorted(env_id for env_id, _ in measured)
    assert {"commit", "machine", "command", "error"} <= rows[0].keys()
    assert "3.00 % another's looks" in capsys.readouterr().out


def test_runs_of_no_entry_are_left_out_and_named(project, capsys):
    publish(project, MNIST, "ram_best_seed0", 0, 0.5, env_kwargs={"glimpse_size": 28})
    assert run_tables(project) == 0
    out, err = capsys.readouterr()
    assert "0.50" not in out
    assert "GlimpseMNIST-v0, ram_best_seed0: glimpse_size=28 makes another task" in err


@pytest.mark.parametrize("page", ["nothing", "<!-- tables: begin -->\n", PAGE + PAGE])
def test_a_page_without_a_place_is_named(project, capsys, page):
    (project / "docs/results.md").write_text(page, encoding="utf-8")
    with pytest.raises(SystemExit):
        run_tables(project, "--write")
    assert f"{Path('docs/results.md')}: the page must hold a line <!-- tables: begin -->" in capsys.readouterr().err
    assert (project / "README.md").read_text("utf-8") == PAGE


def test_a_page_that_is_not_there_is_named(project, capsys):
    (project / "README.md").unlink()
    with pytest.raises(SystemExit):
        run_tables(project, "--check")
    assert "README.md" in capsys.readouterr().err
