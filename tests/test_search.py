import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from optuna.trial import TrialState

from agents.runs import read_hyperparams
from benchmarks.search import SPACES, main
from benchmarks.search_report import Row, report
from benchmarks.search_study import open_search

SCRIPT = str(SPACES.parents[1] / "benchmarks" / "search.py")


def read_table(study):
    with (study / "trials.csv").open() as file:
        return list(csv.DictReader(file))


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


def test_a_search_around_a_preset(tmp_path):
    study = tmp_path / "study"
    main(["--workers", "0", "--trials", "1", "--study", str(study), "--preset", "paper", *SMALL])
    settings = read_hyperparams(study / "best.yml", "GlimpseMNIST-v0")
    assert settings["class_loss_steps"] == "last"
    assert "scan_steps" not in settings["policy_kwargs"]


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
