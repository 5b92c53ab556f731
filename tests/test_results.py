import json
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("torch")

from finished_runs import publish_run

from ram_envs.benchmarks.results import COLUMNS, RESULTS, add_results, curve_of, folder_of, read_results

MNIST, CATCH = "GlimpseMNIST-v0", "GlimpseCatch-v0"


def test_a_row_is_the_result_of_a_run_and_the_means_of_its_evaluations(tmp_path):
    table = tmp_path / "study.jsonl"
    publish_run(table, "ppo_seed3", CATCH, algo="ppo", seed=3, error=50.0, facts={"comparison_command": "all"})
    [result] = read_results(table)
    assert (result["env"], result["run"], result["algo"], result["seed"]) == (CATCH, "ppo_seed3", "ppo", 3)
    assert (result["success_rate"], result["comparison_command"]) == (0.5, "all")
    curve = curve_of(result)
    assert tuple(curve) == COLUMNS
    assert curve["timesteps"].tolist() == [3_500_000, 7_003_000]
    assert curve["train_seconds"].tolist() == [90.12, 181.0]
    assert curve["success"].tolist() == curve["reward"].tolist() == [0.25, 0.75]
    assert curve["length"].tolist() == [7, 7]


def test_rows_are_sorted_and_a_run_published_again_replaces_its_row(tmp_path):
    table = tmp_path / "study.jsonl"
    names = ["ram_seed10", "ram_seed9", "a2c_seed0", "gain_03", "gain_003"]
    add_results(table, [{"env": MNIST, "run": run, "seed": 0} for run in names])
    add_results(table, [{"env": CATCH, "run": "ram_seed9"}, {"env": MNIST, "run": "ram_seed9", "seed": 1}, {"run": "import"}])
    expected = ["a2c_seed0", "gain_003", "gain_03", "ram_seed9", "ram_seed10"]
    assert [(one.get("env", ""), one["run"]) for one in read_results(table)] == [
        ("", "import"),
        (CATCH, "ram_seed9"),
        *((MNIST, run) for run in expected),
    ]
    assert [one["seed"] for one in read_results(table) if one.get("env") == MNIST and one["run"] == "ram_seed9"] == [1]
    assert table.read_text("utf-8").count("\n") == 7
    assert [path.name for path in tmp_path.iterdir()] == ["study.jsonl"]


def test_those_who_publish_at_once_lose_no_row(tmp_path):
    pytest.importorskip("fcntl")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: add_results(tmp_path / "study.jsonl", [{"run": f"run_{number}"}]), range(40)))
    assert len(read_results(tmp_path / "study.jsonl")) == 40


def test_a_study_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"study must be one of attention, .*, tables or the path of a table, got 'nothing'"
    ):
        read_results("nothing")
    with pytest.raises(FileNotFoundError, match=r"got '.*x\.jsonl'"):
        read_results(tmp_path / "x.jsonl")


@pytest.mark.parametrize("study", sorted(path.stem for path in RESULTS.glob("*.jsonl")))
def test_the_published_tables_are_whole(study):
    results = read_results(study)
    assert len({(row.get("env"), row["run"]) for row in results}) == len(results)
    for row in results:
        assert {"run", "commit", "machine"} <= row.keys()
        if "curve" in row:
            assert len({len(values) for values in curve_of(row).values()}) == 1
    assert results == [json.loads(line) for line in (RESULTS / f"{study}.jsonl").read_text("utf-8").splitlines()]


def test_environments_of_ones_own_have_names_for_the_disk():
    assert folder_of("mine/Own-v0") == "mine_Own-v0"
    assert folder_of("module:GlimpseMNIST-v0") == "module_GlimpseMNIST-v0"


def test_a_failed_write_leaves_the_table(tmp_path, monkeypatch):
    table = tmp_path / "study.jsonl"
    add_results(table, [{"run": "one ü"}])
    before = table.read_bytes()
    monkeypatch.setattr("os.replace", lambda *paths: [][0])
    with pytest.raises(IndexError):
        add_results(table, [{"run": "two"}])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
