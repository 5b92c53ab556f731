import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from optuna.trial import TrialState

from agents.runs import read_hyperparams
from benchmarks import search_study
from benchmarks.search import SPACES, main
from benchmarks.search_journal import cut_half_line
from benchmarks.search_report import Row, report
from benchmarks.search_space import Choices, Range, parse_space, read_space
from benchmarks.search_study import claim_trial, open_search, work
from benchmarks.search_trial import trial_config

SCRIPT = str(SPACES.parents[1] / "benchmarks" / "search.py")
ASKED = {"algo": "ram", "env": "GlimpseMNIST-v0", "seed": 0}
SPACE = parse_space({"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "n_epochs": {"low": 1, "high": 8}})
FIGURES = {"n_timesteps": 10, "train_seconds": 1.0, "train_cpu_seconds": 1.0}


def measured(error):
    """A stand-in for run_trial with this validation error."""
    return lambda config, report: {"validation_error": error, **FIGURES}


def states(search):
    return [trial.state.name for trial in search.study.get_trials()]


def read_table(study):
    with (study / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_entries_of_a_space():
    assert parse_space({"a": {"low": 1, "high": 2.5, "log": True, "schedule": "lin"}, "b": {"choices": [1, "x", [64, 64]]}}) == {
        "a": Range(low=1, high=2.5, log=True, schedule="lin"),
        "b": Choices(choices=(1, "x", [64, 64])),
    }
    assert parse_space({"a": {"low": 1, "high": 2}})["a"].is_whole
    assert not parse_space({"a": {"low": 1, "high": 2.0}})["a"].is_whole


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (0.9, r"gamma must have either low and high, or choices, got 0.9"),
        ({"low": 1, "high": 2, "choices": [1]}, "gamma must have either low and high, or choices"),
        ({"low": 1}, "gamma: high must be a number, got None"),
        ({"low": "1e-4", "high": 1}, "gamma: low must be a number, got '1e-4': YAML wants a point before the e"),
        ({"low": True, "high": 2}, "gamma: low must be a number, got True"),
        ({"low": 2, "high": 1}, "gamma: low must be below high, got low 2 and high 1"),
        ({"low": 0, "high": 1, "log": True}, "gamma: with log, low must be above 0, got 0"),
        ({"low": 0, "high": 1, "log": 3}, "gamma: log must be true or false, got 3"),
        ({"low": 0, "high": 1, "lgo": True}, r"gamma: unknown key 'lgo', allowed .* \['high', 'log', 'low', 'schedule'\]"),
        ({"choices": [1], "log": True}, r"gamma: unknown key 'log', allowed .* \['choices', 'schedule'\]"),
        ({"choices": []}, "gamma: choices must be a list with something in it"),
        ({"low": 0, "high": 1, "schedule": "exp"}, r"gamma: schedule must be one of \('lin',\), got 'exp'"),
        ({"choices": ["x"], "schedule": "lin"}, "gamma: a choice with a schedule must be a number, got 'x'"),
    ],
)
def test_bad_entries_are_named(entry, message):
    with pytest.raises(ValueError, match=message):
        parse_space({"gamma": entry})


def test_a_space_is_read_for_the_algorithm_or_the_environment(tmp_path):
    file = tmp_path / "space.yml"
    file.write_text("ram: {a: {choices: [1]}, b: {choices: [1]}}\nram/X-v0: {c: {choices: [1]}}\nppo: {a: 3}\n")
    assert list(read_space(file, "ram", "Y-v0")) == ["a", "b"]
    assert list(read_space(file, "ram", "X-v0")) == ["c"]
    assert list(read_space(file, "ram", "Y-v0", fixed={"a"})) == ["b"]
    with pytest.raises(ValueError, match="nothing is left to search"):
        read_space(file, "ram", "X-v0", fixed={"c"})
    with pytest.raises(ValueError, match=r"space.yml, ppo: a must have either"):
        read_space(file, "ppo", "X-v0")
    with pytest.raises(ValueError, match=r"no space for 'sac', only for \['ppo', 'ram', 'ram/X-v0'\]: write one .* --space"):
        read_space(file, "sac", "X-v0")


def test_the_spaces_that_come_with_it_are_good():
    names = {name.partition("/")[0] for name in yaml.safe_load(SPACES.read_text())}
    assert {"ram", "ppo", "a2c", "recurrent_ppo", "sac", "td3", "dqn", "episode_ppo", "fc64", "conv"} <= names
    for name in names:
        assert "learning_rate" in read_space(SPACES, name, "GlimpseMNIST-v0")
    assert {"learning_rate", "policy_kwargs.location_std"} <= read_space(SPACES, "ram", "GlimpseMNIST-v0").keys()


def test_the_space_in_the_docs_is_good(tmp_path):
    page = (SPACES.parents[1] / "docs" / "search.md").read_text()
    (tmp_path / "space.yml").write_text(page.split("```yaml\n")[1].split("```")[0])
    assert read_space(tmp_path / "space.yml", "ram", "GlimpseMNIST-v0")["n_epochs"] == Range(low=1, high=8)
    assert list(read_space(tmp_path / "space.yml", "ram", "GlimpseCatch-v0")) == ["gamma"]


def test_values_go_where_a_trial_wants_them():
    asked = {**ASKED, "n_envs": None, "params": {"gamma": 1}, "env_kwargs": {"dataset": "mnist-5k"}, "space": {}}
    space = {name: Choices(choices=(1,)) for name in ("n_envs", "env_kwargs.num_glimpses", "policy_kwargs.core")}
    space["learning_rate"] = Range(low=0.0, high=1.0, schedule="lin")
    values = {"n_envs": 64, "env_kwargs.num_glimpses": 4, "policy_kwargs.core": "lstm", "learning_rate": 0.25}
    assert trial_config(asked, space, values) == {
        **ASKED,
        "n_envs": 64,
        "params": {"gamma": 1, "policy_kwargs.core": "lstm", "learning_rate": "lin_0.25"},
        "env_kwargs": {"dataset": "mnist-5k", "num_glimpses": 4},
        "test": False,
        "figures": False,
        "num_threads": 1,
    }
    assert asked["params"] == {"gamma": 1}


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


def test_report_without_finished_trials(tmp_path, capsys):
    report(tmp_path, "GlimpseMNIST-v0", [Row(0, "fail", None, {"a": 1}, {"exception": "ValueError: x"})], "ram")
    assert "ram: 1 fail" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"trials.csv"}
    assert read_table(tmp_path)[0]["exception"] == "ValueError: x"


SMALL = ["--n-timesteps", "192", "--n-envs", "32", "--evaluations", "2", "--env-kwargs", "dataset:mnist-5k", "num_glimpses:3"]


def test_a_search_for_settings_of_ram(tmp_path, capsys):
    study = tmp_path / "study"
    rows = main(["--workers", "0", "--trials", "2", "--study", str(study), "-params", "vf_coef:0.25", *SMALL])
    assert [row.state for row in rows] == ["complete", "complete"]
    best = min(rows, key=lambda row: row.error)
    settings = read_hyperparams(study / "best.yml", "GlimpseMNIST-v0")
    assert settings["learning_rate"] == f"lin_{best.values['learning_rate']}"
    assert settings["policy_kwargs"]["location_std"] == best.values["policy_kwargs.location_std"]
    assert settings["policy_kwargs"]["scan_steps"] == 7  # As tuned.
    assert (settings["vf_coef"], settings["n_envs"], settings["n_timesteps"]) == (0.25, 32, 192)
    assert "vf_coef" not in best.values
    assert settings["env_kwargs"] == {"dataset": "mnist-5k", "num_glimpses": 3}
    assert [float(line["validation_error"]) for line in read_table(study)] == [row.error for row in rows]
    for number in range(2):
        folder = study / f"trial_{number}"
        assert '"test_error"' not in (folder / "result.json").read_text()  # The test split is never touched.
        assert not list(folder.glob("*.png"))
    shown = capsys.readouterr().out
    assert main(["--study", str(study), "--show"]) == rows
    assert capsys.readouterr().out in shown
    with pytest.raises(ValueError, match="was begun with n_timesteps=192, got None"):
        main(["--study", str(study)])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--algo", "ram", "--env", "Nope-v0"], ValueError, "env must be a registered id, got 'Nope-v0'"),
        (["--algo", "fc64", "--env", "Catch-v0"], ValueError, "fc64 can't learn Catch-v0"),
        (["--imports", "no_such_module"], ImportError, "no_such_module"),
        (["--trials", "0"], SystemExit, "2"),
        (["-params", "nothing"], SystemExit, "2"),
    ],
)
def test_bad_command_lines(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        main(["--workers", "0", "--study", str(tmp_path), *arguments])


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "benchmarks.search_ray", raising=False)
    with pytest.raises(ImportError, match=r"--engine ray needs the package ray: pip install 'ram-envs\[ray\]'"):
        main(["--engine", "ray", "--study", str(tmp_path)])


# An algorithm that learns nothing and always makes the same move. After its first evaluation it waits for a ticket to go on.
PATIENT = """
import os, time
import numpy as np
from agents import register_algorithm

def predict(move, obs):
    actions = np.zeros((len(obs["location"]), 3), np.int64)
    actions[:, 2] = move
    return actions, None

def take_ticket():
    while True:
        for ticket in os.listdir("tickets"):
            try:
                return os.unlink(f"tickets/{ticket}")
            except FileNotFoundError:
                pass
        time.sleep(0.02)

@register_algorithm("patient", action_format="multidiscrete")
def patient(env, seed, move):
    yield 10, lambda obs, *_: predict(move, obs)
    take_ticket()
    yield 20, lambda obs, *_: predict(move, obs)
"""


GAME = ["--env", "GlimpseCatch-v0", "--env-kwargs", "size:6", "--n-envs", "1", "-n", "20", "--evaluations", "2"]


def search_with_patience(folder, *options):
    """The command, under way in the folder, and a function that gives out tickets."""
    (folder / "patient.py").write_text(PATIENT)
    (folder / "space.yml").write_text("patient:\n  move: {choices: [0, 1, 2]}\n")
    (folder / "tickets").mkdir()
    mine = ["--algo", "patient", "--imports", "patient", "--space", "space.yml", "--study", "study", "--workers", "2"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    command = subprocess.Popen([sys.executable, SCRIPT, *mine, *GAME, *options], cwd=folder, env=environment)
    return command, lambda *names: [(folder / "tickets" / name).touch() for name in names]


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, "the search ended"
        time.sleep(0.05)


def test_two_workers_killed_in_mid_trial_lose_their_trials_and_nothing_else(tmp_path):
    command, give_tickets = search_with_patience(tmp_path, "--trials", "5")
    give_tickets("1", "2")
    study = tmp_path / "study"
    wait_until(lambda: list(study.glob("trial_*")), command)
    search = open_search(study)

    def trials(state):
        return search.study.get_trials(states=(state,))

    def under_way():
        return [trial for trial in trials(TrialState.RUNNING) if trial.intermediate_values]

    wait_until(lambda: len(trials(TrialState.COMPLETE)) == len(under_way()) == 2, command)
    finished, lost = trials(TrialState.COMPLETE), under_way()
    for trial in lost:
        os.kill(trial.user_attrs["pid"], signal.SIGKILL)
    wait_until(lambda: len(trials(TrialState.FAIL)) == len(under_way()) == 2, command)
    give_tickets("3", "4", "5")
    assert command.wait() == 0
    assert [trial.number for trial in trials(TrialState.FAIL)] == [trial.number for trial in lost]
    kept = {trial.number: (trial.value, trial.params) for trial in trials(TrialState.COMPLETE)}
    assert len(kept) == 5
    assert all(kept[trial.number] == (trial.value, trial.params) for trial in finished)
    settings = read_hyperparams(study / "best.yml", "GlimpseCatch-v0")
    assert settings["move"] == search.study.best_params["move"]


def test_ray_tune_makes_up_for_a_killed_trial(tmp_path):
    pytest.importorskip("ray")
    command, give_tickets = search_with_patience(tmp_path, "--trials", "2", "--engine", "ray")
    study = tmp_path / "study"
    wait_until(lambda: len(list(study.glob("trial_*/evaluations.npz"))) == 2, command)
    lost = json.loads(next(study.glob("trial_*/trial.json")).read_text())
    os.kill(lost["pid"], signal.SIGKILL)
    give_tickets("1", "2")
    assert command.wait() == 0
    assert sorted(line["state"] for line in read_table(study)) == ["complete", "complete", "fail"]


def test_ray_tune_goes_on_with_a_study(tmp_path):
    pytest.importorskip("ray")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    options = ["--engine", "ray", "--sampler", "tpe", "--pruner", "median", "--study", str(tmp_path), *SMALL]
    for num_trials in ("1", "2"):
        subprocess.run([sys.executable, SCRIPT, "--trials", num_trials, *options], env=environment, check=True)
    table = read_table(tmp_path)
    assert [line["state"] for line in table] == ["complete", "complete"]
    assert table[0]["learning_rate"] != table[1]["learning_rate"]
    best = min(table, key=lambda line: float(line["validation_error"]))
    assert read_hyperparams(tmp_path / "best.yml", "GlimpseMNIST-v0")["learning_rate"] == f"lin_{best['learning_rate']}"
