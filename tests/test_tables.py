import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("scipy")

from benchmarks.results import publish, read_runs
from benchmarks.tables import PROJECT, describe_group, main

MNIST, CATCH = "GlimpseMNIST-v0", "GlimpseCatch-v0"
PAGE = "Before.\n\n<!-- tables: begin -->\nold\n<!-- tables: end -->\n\nAfter.\n"


@pytest.fixture
def project(tmp_path):
    """A folder with two pages and no runs."""
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/results.md"):
        (tmp_path / name).write_text(PAGE)
    return tmp_path


def publish_run(project, env_id, name, seed, error, preset="best", **changes):
    """A published run with two evaluations of four episodes."""
    folder = project / "runs" / f"{env_id}_{name}_{seed}"
    folder.mkdir(parents=True)
    result = {"env": env_id, "algo": "ram", "preset": preset, "seed": seed, "test_error": error, "validation_error": error}
    result |= {"n_timesteps": 7_000_000, "train_cpu_seconds": 60.0, "train_seconds": 61.0, "env_kwargs": {}}
    result |= {"command": "python train_agent.py --seed 0", "commit": "c0ffee", "torch": "2.13.0", "machine": "2 cores, cpu"}
    result |= changes
    if env_id == MNIST:
        result |= {"dataset": "mnist", "dataset_size": 50_000}
    (folder / "result.json").write_text(json.dumps(result))
    successes = np.array([[0, 0, 0, 1], [1, 0, 1, 1]])
    curve = {"timesteps": [1, 2], "train_seconds": [30.0, 61.0], "cpu_seconds": [30.0, 60.0 + seed], "successes": successes}
    np.savez(folder / "evaluations.npz", **curve, results=successes, ep_lengths=np.full((2, 4), 7))
    publish(folder, project / "results" / "tables" / env_id / f"{name}_seed{seed}")


def run_tables(project, *options):
    return main(["--project", str(project), *options])


def test_the_checked_in_pages_agree_with_the_checked_in_results(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().out
    for page in ("README.md", "docs/results.md"):
        path = PROJECT / page
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", path.read_text("utf-8")):
            assert (path.parent / picture).is_file(), f"{page}: {picture}"


def test_without_runs_the_tables_are_there(project, capsys):
    assert run_tables(project) == 0
    out = capsys.readouterr().out
    assert re.search(r"MNIST 28x28.* 7 .* 1\.07 .* 0\.67 .* 0\.60 .* – .* – .* – ", out)
    assert "Fewer glimpses" in out and "Other models" in out
    assert run_tables(project, "--write") == 0
    text = (project / "docs/results.md").read_text("utf-8")
    assert "| Catch, balls caught | 24 | 85 | 89 | 99 | – | – | – |" in text
    assert "Every run" not in text and "Learning curves" not in text
    assert not list(project.rglob("*.png"))


def test_what_is_written(project, capsys):
    for seed, error in enumerate((0.5, 0.6)):
        publish_run(project, MNIST, "ram_best", seed, error)
    publish_run(project, CATCH, "ram_paper", 0, 12.5, preset="paper")
    assert run_tables(project, "--check") == 1
    assert "results.md is out of date: run python benchmarks/tables.py --write" in capsys.readouterr().out
    assert run_tables(project, "--write") == 0
    readme, docs = ((project / name).read_text("utf-8") for name in ("README.md", "docs/results.md"))
    mnist = "| MNIST 28x28, 8x8, 1 scale | 7 | 1.07 | 0.67 | 0.60 | – | 0.55 ± 0.07 (2 seeds) | reached (2 of 3 seeds) |"
    catch = "| Catch, balls caught | 24 | 85 | 89 | 99 | 87.50 (1 seed) | – | – |"
    for text in (readme, docs):
        assert text.startswith("Before.\n\n<!-- tables: begin -->\n") and text.endswith("\n<!-- tables: end -->\n\nAfter.\n")
        assert mnist in text and catch in text and "old" not in text
    assert "Other models" in docs and "Other models" not in readme
    assert "| [json](../results/tables/GlimpseMNIST-v0/ram_best_seed1.json) |" in docs
    pictures = [f"tables_{env_id}.png" for env_id in (MNIST, CATCH)]
    assert re.findall(r"\(images/(.*?)\)", docs) == pictures
    assert re.findall(r"\(docs/images/(.*?)\)", readme) == ["tables.png"]
    for name in (*pictures, "tables.png"):
        assert (project / "docs/images" / name).stat().st_size > 10_000


def test_curves_say_where_a_gpu_took_part(project):
    machines = ["2 cores, cpu", "2 cores, cpu", "16 cores, cuda", "16 cores, cuda, then 2 cores, cpu"]
    for seed, machine in enumerate(machines):
        publish_run(project, MNIST, "ram_best", seed, 0.5, machine=machine)
    runs = sorted(read_runs(project / "results" / "tables"), key=lambda run: run.result["seed"])
    shown = [describe_group(group) for group in (runs[:1], runs[:2], runs[1:3], runs[3:])]
    assert shown == ["1 seed", "2 seeds", "2 seeds, with a GPU", "1 seed, with a GPU"]


def test_writing_again_changes_nothing(project):
    publish_run(project, MNIST, "ram_best", 0, 0.5)
    run_tables(project, "--write")
    files = [*project.rglob("*.md"), *project.rglob("*.png")]
    before = [path.read_bytes() for path in files]
    run_tables(project, "--write")
    assert [path.read_bytes() for path in files] == before
    assert len(files) == 4
    assert run_tables(project, "--check") == 0


def test_runs_of_no_row_are_left_out_and_named(project, capsys):
    publish_run(project, MNIST, "ram_best", 0, 0.5, env_kwargs={"glimpse_size": 28})
    assert run_tables(project) == 0
    out, err = capsys.readouterr()
    assert "0.50" not in out
    assert "ram_best_seed0.json: glimpse_size=28 makes another task" in err


@pytest.mark.parametrize("page", ["nothing", "<!-- tables: begin -->\n", PAGE + PAGE])
def test_a_page_without_a_place_is_named(project, capsys, page):
    (project / "docs/results.md").write_text(page)
    with pytest.raises(SystemExit):
        run_tables(project, "--write")
    assert f"{Path('docs/results.md')}: the page must hold a line <!-- tables: begin -->" in capsys.readouterr().err
    assert (project / "README.md").read_text() == PAGE


def test_a_page_that_is_not_there_is_named(project, capsys):
    (project / "README.md").unlink()
    with pytest.raises(SystemExit):
        run_tables(project, "--check")
    assert "README.md" in capsys.readouterr().err
