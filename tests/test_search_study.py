import os
import socket

import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from benchmarks import search_study
from benchmarks.search_journal import cut_half_line
from benchmarks.search_space import parse_space
from benchmarks.search_study import claim_trial, open_search, work

ASKED = {"algo": "ram", "env": "GlimpseMNIST-v0", "seed": 0}
SPACE = parse_space({"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "n_epochs": {"low": 1, "high": 8}})
FIGURES = {"n_timesteps": 10, "train_seconds": 1.0, "train_cpu_seconds": 1.0}


def measured(error):
    """A stand-in for run_trial with this validation error."""
    return lambda config, report: {"validation_error": error, **FIGURES}


def states(search):
    return [trial.state.name for trial in search.study.get_trials()]


def test_random_samples_depend_on_the_seed_and_the_trials_number_alone(tmp_path):
    def drawn(folder, num_at_once, seed=0):
        for num_trials in (*range(num_at_once, 4, num_at_once), 4):
            work(open_search(folder, {**ASKED, "seed": seed}), num_trials, SPACE, measured(1.0))
        return [trial.params for trial in open_search(folder).study.trials]

    whole = drawn(tmp_path / "a", 4)
    assert drawn(tmp_path / "b", 1) == whole
    assert len({values["learning_rate"] for values in whole}) == 4
    assert all(1e-4 <= values["learning_rate"] <= 1e-2 and values["n_epochs"] in range(1, 9) for values in whole)
    assert drawn(tmp_path / "c", 4, seed=1)[0] != whole[0]


def test_tpe_learns_where_it_is_better(tmp_path):
    search = open_search(tmp_path, ASKED)
    space = parse_space({"x": {"low": 0.0, "high": 1.0}, "layers": {"choices": [[64], [64, 64]]}})
    seen = []

    def run_trial(config, report):
        seen.append(config["params"])
        return {"validation_error": 100 * config["params"]["x"] ** 2, **FIGURES}

    work(search, 5, space, run_trial, sampler="tpe")
    assert search.importances() == {}  # Too few to tell.
    work(search, 30, space, run_trial, sampler="tpe")
    xs = [params["x"] for params in seen]
    assert sum(xs[-10:]) < sum(xs[:10])
    assert {tuple(params["layers"]) for params in seen} == {(64,), (64, 64)}  # Lists come as lists.
    assert search.rows()[0].values == seen[0]
    importances = search.importances()
    assert importances["x"] > importances["layers"]


def test_poor_trials_are_stopped_early(tmp_path):
    errors = iter([1.0] * 5 + [9.0, 0.5])

    def run_trial(config, report):
        error = next(errors)
        for steps in (100, 200):
            report(steps, error)
        return {"validation_error": error, **FIGURES}

    search = open_search(tmp_path, ASKED)
    work(search, 7, SPACE, run_trial, pruner="median")
    assert states(search) == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE"]
    assert [row.error for row in search.rows()][4:] == [1.0, 9.0, 0.5]
    assert len(search.study.trials[5].intermediate_values) == 1
    assert search.study.best_value == 0.5


def test_a_trial_that_fails_does_not_count(tmp_path):
    outcomes = iter([ValueError("nan in the logits"), float("nan"), 2.0, 3.0])

    def run_trial(config, report):
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return {"validation_error": outcome, **FIGURES}

    search = open_search(tmp_path, ASKED)
    work(search, 2, SPACE, run_trial)
    assert states(search) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert search.study.trials[0].user_attrs["exception"] == "ValueError: nan in the logits"
    assert "nan in the logits" in (tmp_path / "trial_0" / "exception.txt").read_text()
    assert search.study.trials[1].user_attrs["exception"] == "ValueError: the validation error is nan"


def test_where_every_trial_fails_the_worker_ends(tmp_path):
    def run_trial(config, report):
        raise KeyError("policy")

    search = open_search(tmp_path, ASKED)
    with pytest.raises(KeyError, match="policy"):
        work(search, 9, SPACE, run_trial)
    assert states(search) == ["FAIL"] * search_study.MAX_FAILURES
    work(search, 9, SPACE, measured(1.0), goes_on=lambda: False)
    assert len(search.study.trials) == search_study.MAX_FAILURES


def test_only_dead_trials_of_this_machine_are_told_as_failed(tmp_path, monkeypatch):
    search = open_search(tmp_path, ASKED)
    _, lock = claim_trial(search, 9)  # Trial 0, alive.
    claim_trial(search, 9)[1].release()  # Trial 1, dead: nobody holds its lock.
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "another")
        claim_trial(search, 9)[1].release()  # Trial 2, of another machine.
    search.study.ask()  # Trial 3: killed before it could say whose it is.
    assert [row.state for row in search.rows()] == ["running", "fail", "running", "running"]
    assert search.study.trials[0].user_attrs == {"host": socket.gethostname(), "pid": os.getpid()}
    lock.release()
    assert [row.state for row in search.rows()] == ["fail", "fail", "running", "running"]
    work(search, 2, SPACE, measured(1.0))
    assert states(search) == ["FAIL", "FAIL", "RUNNING", "RUNNING", "COMPLETE", "COMPLETE"]


def test_a_worker_waits_while_the_others_might_be_enough(tmp_path, monkeypatch):
    search = open_search(tmp_path, ASKED)
    trial, lock = claim_trial(search, 1)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            search.study.tell(trial, 1.0)
            lock.release()

    monkeypatch.setattr(search_study.time, "sleep", sleep)
    assert claim_trial(search, 1) is None
    assert len(waits) == 3
    assert states(search) == ["COMPLETE"]


def test_a_worker_killed_while_it_writes_blocks_nobody(tmp_path):
    search = open_search(tmp_path, ASKED)
    work(search, 1, SPACE, measured(1.0))
    with (tmp_path / "journal.log").open("a") as journal:
        journal.write('{"op_code": 4, "wor')
    (tmp_path / "journal.log.lock").touch()
    search = open_search(tmp_path, ASKED, grace_period=3)
    work(search, 2, SPACE, measured(2.0))
    assert [row.error for row in open_search(tmp_path).rows()] == [1.0, 2.0]
    (tmp_path / "half").write_text("no line at all")
    cut_half_line(tmp_path / "half")
    assert (tmp_path / "half").read_text() == ""


def test_all_trials_of_a_study_have_the_same_in_common(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no study in"):
        open_search(tmp_path)
    open_search(tmp_path, {**ASKED, "space": {"a": {"choices": (1, 2)}}})
    open_search(tmp_path, {**ASKED, "space": {"a": {"choices": (1, 2)}}})
    with pytest.raises(ValueError, match=r"was begun with seed=0, got 1: join it with the same, or begin another with --study"):
        open_search(tmp_path, {**ASKED, "seed": 1})
