import os
import socket

import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from ram_envs.agents.training.config import RunConfig
from ram_envs.benchmarks.search_study import MAX_FAILURES, claim_trial, count_running, make_config, open_search, work

SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "n_epochs": {"low": 1, "high": 8}}
ASKED = {"algo": "ram", "env": "GlimpseMNIST-v0", "seed": 0, "hyperparams": {}, "env_kwargs": {}, "space": SPACE}
FIGURES = {"n_timesteps": 10, "train_seconds": 1.0, "train_cpu_seconds": 1.0}


def measured(error):
    """A stand-in for a run with this validation error."""
    return lambda config, report: {"validation_error": error, **FIGURES}


def states(search):
    with search.lock:
        count_running(search)
    return [trial.state.name for trial in search.trials()]


def test_random_samples_depend_on_the_seed_and_the_trials_number_alone(tmp_path):
    def drawn(folder, num_at_once, seed=0):
        for num_trials in (*range(num_at_once, 4, num_at_once), 4):
            work(open_search(folder, {**ASKED, "seed": seed}), num_trials, measured(1.0))
        return [trial.params for trial in open_search(folder).trials()]

    whole = drawn(tmp_path / "a", 4)
    assert drawn(tmp_path / "b", 1) == whole
    assert len({values["learning_rate"] for values in whole}) == 4
    assert all(1e-4 <= values["learning_rate"] <= 1e-2 and values["n_epochs"] in range(1, 9) for values in whole)
    assert drawn(tmp_path / "c", 4, seed=1)[0] != whole[0]


def test_tpe_learns_where_it_is_better(tmp_path):
    space = {"x": {"low": 0.0, "high": 1.0}, "layers": {"choices": [[64], [64, 64]]}}
    search = open_search(tmp_path, {**ASKED, "space": space})
    seen = []

    def run(config, report):
        seen.append(config.hyperparams)
        return {"validation_error": 100 * config.hyperparams["x"] ** 2, **FIGURES}

    work(search, 30, run, sampler="tpe")
    xs = [hyperparams["x"] for hyperparams in seen]
    assert sum(xs[-10:]) < sum(xs[:10])
    assert {tuple(hyperparams["layers"]) for hyperparams in seen} == {(64,), (64, 64)}  # Lists come as lists.


def test_poor_trials_are_stopped_early(tmp_path):
    errors = iter([1.0] * 5 + [9.0, 0.5])

    def run(config, report):
        error = next(errors)
        for steps in (100, 200):
            report(steps, error)
        return {"validation_error": error, **FIGURES}

    search = open_search(tmp_path, ASKED)
    work(search, 7, run, pruner="median")
    assert states(search) == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE"]
    assert [trial.value for trial in search.trials()][4:] == [1.0, 9.0, 0.5]
    assert len(search.trials()[5].intermediate_values) == 1
    assert search.study.best_value == 0.5


def test_a_trial_that_fails_does_not_count(tmp_path):
    outcomes = iter([ValueError("nan in the logits"), float("nan"), 2.0, 3.0])

    def run(config, report):
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return {"validation_error": outcome, **FIGURES}

    search = open_search(tmp_path, ASKED)
    work(search, 2, run)
    assert states(search) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert search.trials()[0].user_attrs["exception"] == "ValueError: nan in the logits"
    assert "nan in the logits" in (tmp_path / "trial_0" / "exception.txt").read_text("utf-8")
    assert search.trials()[1].user_attrs["exception"] == "ValueError: the validation error is nan"


def test_where_every_trial_fails_the_worker_ends(tmp_path):
    def run(config, report):
        raise KeyError("policy")

    search = open_search(tmp_path, ASKED)
    with pytest.raises(KeyError, match="policy"):
        work(search, 9, run)
    assert states(search) == ["FAIL"] * MAX_FAILURES
    work(search, 9, measured(1.0), continues=lambda: False)
    assert len(search.trials()) == MAX_FAILURES


def test_only_dead_trials_of_this_machine_are_marked_as_failed(tmp_path):
    search = open_search(tmp_path, ASKED)
    _, lock = claim_trial(search, 9)  # Trial 0, alive.
    claim_trial(search, 9)[1].release()  # Trial 1, dead: nobody holds its lock.
    search.study.ask().set_user_attr("host", "another")  # Trial 2, of another machine.
    search.study.ask()  # Trial 3: killed before it could say whose it is.
    assert states(search) == ["RUNNING", "FAIL", "RUNNING", "RUNNING"]
    assert search.trials()[0].user_attrs == {"host": socket.gethostname(), "pid": os.getpid()}
    lock.release()
    assert states(search) == ["FAIL", "FAIL", "RUNNING", "RUNNING"]
    work(search, 2, measured(1.0))
    assert states(search) == ["FAIL", "FAIL", "RUNNING", "RUNNING", "COMPLETE", "COMPLETE"]


def test_a_worker_waits_while_the_others_might_be_enough(tmp_path):
    search = open_search(tmp_path, ASKED)
    trial, lock = claim_trial(search, 1)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            search.study.tell(trial, 1.0)
            lock.release()

    assert claim_trial(search, 1, sleep=sleep) is None
    assert len(waits) == 3
    assert states(search) == ["COMPLETE"]


def test_a_worker_killed_while_it_writes_blocks_nobody(tmp_path):
    work(open_search(tmp_path, ASKED), 1, measured(1.0))
    with (tmp_path / "journal.log").open("a", encoding="utf-8") as journal:
        journal.write('{"op_code": 4, "wor')
    (tmp_path / "journal.log.lock").touch()
    work(open_search(tmp_path, ASKED, grace_period=3), 2, measured(2.0))
    assert [trial.value for trial in open_search(tmp_path).trials()] == [1.0, 2.0]


def test_all_trials_of_a_study_have_the_same_in_common(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no study in"):
        open_search(tmp_path)
    open_search(tmp_path, ASKED)
    open_search(tmp_path, ASKED)
    with pytest.raises(ValueError, match=r"was begun with seed=0, got 1: join it with the same, or begin another with --study"):
        open_search(tmp_path, {**ASKED, "seed": 1})


def test_values_go_where_a_run_wants_them(tmp_path):
    space = {**SPACE, "learning_rate": {"low": 0.0, "high": 1.0, "schedule": "lin"}}
    asked = {**ASKED, "hyperparams": {"gamma": 1}, "env_kwargs": {"dataset": "mnist-5k"}, "space": {**space, "n_envs": {}}}
    search = open_search(tmp_path, asked)
    assert make_config(search, 7, {"n_envs": 64, "learning_rate": 0.25}, "python ...") == RunConfig(
        env="GlimpseMNIST-v0",
        folder=tmp_path / "trial_7",
        hyperparams={"gamma": 1, "n_envs": 64, "learning_rate": "lin_0.25"},
        env_kwargs={"dataset": "mnist-5k"},
        test=False,
        figures=False,
        command="python ...",
    )
