import csv
import importlib.util
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

from ram_envs.agents.training.settings import HYPERPARAMS, read_file
from ram_envs.benchmarks.results import read_results
from ram_envs.benchmarks.search import main, report
from ram_envs.benchmarks.search_study import open_search, work

SCRIPT = str(HYPERPARAMS.parent / "benchmarks" / "search.py")


def read_table(study):
    with (study / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_report_without_complete_trials(tmp_path, capsys):
    space = {"a": {"choices": [1]}}
    search = open_search(tmp_path, {"algo": "ram", "env": "GlimpseMNIST-v0", "seed": 0, "space": space})
    report(search)
    assert "ram on GlimpseMNIST-v0: no trials" in capsys.readouterr().out
    trial = search.study.ask()
    trial.set_user_attr("exception", "ValueError: x")
    search.study.tell(trial, state=TrialState.FAIL)
    report(search)
    assert "1 fail" in capsys.readouterr().out
    assert not (tmp_path / "best.yml").exists()
    assert [(line["state"], line["exception"]) for line in read_table(tmp_path)] == [("fail", "ValueError: x")]


def test_a_report_says_what_mattered_where_trials_are_enough(tmp_path, capsys):
    def run(config, report):
        x = config.hyperparams["x"]
        result = {"validation_error": 100 * x**2, "n_timesteps": 10, "train_seconds": 1.0, "train_cpu_seconds": 1.0}
        facts = {"algo": config.algo, "env": config.env, "command": "", "hyperparams": config.hyperparams, "env_kwargs": {}}
        (config.folder / "result.json").write_text(json.dumps(result | facts), encoding="utf-8")
        return result

    space = {"y": {"low": 0.0, "high": 1.0}, "x": {"low": 0.0, "high": 1.0}}
    asked = {"algo": "ram", "env": "GlimpseMNIST-v0", "seed": 0, "hyperparams": {}, "space": space}
    search = open_search(tmp_path, asked)
    work(search, 19, run)
    report(search)
    assert "What mattered" not in capsys.readouterr().out
    work(search, 20, run)
    report(search)
    assert "What mattered, as shares (Optuna's importances): x " in capsys.readouterr().out


SMALL = ["--n-timesteps", "192", "--n-envs", "32", "--evaluations", "2", "--env-kwargs", "dataset:mnist-5k", "num_glimpses:3"]


def test_a_search_for_hyperparameters_of_ram(tmp_path, capsys):
    study = tmp_path / "study"
    command = ["--workers", "0", "--trials", "2", "--study", str(study), "-params", "vf_coef:0.25", *SMALL]
    main([*command, "--results", str(tmp_path / "rows.jsonl")])
    trials = open_search(study).trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.COMPLETE]
    best = min(trials, key=lambda trial: trial.value)
    hyperparams = read_file(study / "best.yml", "GlimpseMNIST-v0")
    assert hyperparams["learning_rate"] == f"lin_{best.params['learning_rate']}"
    assert hyperparams["policy_kwargs"]["location_std"] == best.params["policy_kwargs.location_std"]
    assert hyperparams["policy_kwargs"]["path_steps"] == 7  # As tuned.
    assert (hyperparams["vf_coef"], hyperparams["n_envs"], hyperparams["n_timesteps"]) == (0.25, 32, 192)
    assert "vf_coef" not in best.params
    assert hyperparams["env_kwargs"] == {"dataset": "mnist-5k", "num_glimpses": 3}
    assert [float(line["validation_error"]) for line in read_table(study)] == [trial.value for trial in trials]
    rows = read_results(tmp_path / "rows.jsonl")
    assert [(row["run"], row["state"]) for row in rows] == [("ram_seed0_trial0", "complete"), ("ram_seed0_trial1", "complete")]
    for row, trial in zip(rows, trials, strict=True):
        assert (row["validation_error"], row["hyperparams"], row["n_timesteps"]) == (trial.value, trial.params, 192)
        assert row["command"].startswith("python benchmarks/search.py --workers 0") and row["machine"] and "commit" in row
    for number in range(2):
        folder = study / f"trial_{number}"
        assert '"test_error"' not in (folder / "result.json").read_text("utf-8")  # The test split is never touched.
        assert not list(folder.glob("*.png"))
    shown = capsys.readouterr().out
    main(["--study", str(study), "--show"])
    assert open_search(study).trials() == trials
    assert capsys.readouterr().out in shown
    with pytest.raises(ValueError, match="was begun with n_timesteps=192, got None"):
        main(["--study", str(study)])


def test_a_search_around_a_preset_with_options_of_the_environment(tmp_path):
    study, space = tmp_path / "study", tmp_path / "space.yml"
    space.write_text("ram: {env_kwargs.num_scales: {choices: [2]}, n_envs: {choices: [16]}}", encoding="utf-8")
    asked = ["--preset", "paper", "--space", str(space), "-n", "48", "--evaluations", "1", "--env-kwargs", "dataset:mnist-5k"]
    main(["--workers", "0", "--trials", "1", "--study", str(study), *asked])
    hyperparams = read_file(study / "best.yml", "GlimpseMNIST-v0")
    assert hyperparams["class_loss_steps"] == "last"
    assert "path_steps" not in hyperparams["policy_kwargs"]
    assert (hyperparams["n_envs"], hyperparams["env_kwargs"]) == (16, {"num_scales": 2, "dataset": "mnist-5k"})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--algo", "ram", "--env", "Nope-v0"], ValueError, "env must be a registered id, got 'Nope-v0'"),
        (["--algo", "nope"], ValueError, "algo must be one of"),
        (["--algo", "fc64", "--env", "Catch-v0"], ValueError, "fc64 can't learn Catch-v0"),
        (["--preset", "nope"], ValueError, "preset must be one of"),
        (["--evaluations", "0"], ValueError, "evaluations must be at least 1, got 0"),
        (["--imports", "no_such_module"], ImportError, "no_such_module"),
        (["--trials", "0"], SystemExit, "2"),
        (["-params", "nothing"], ValueError, "'nothing' must have the form NAME:VALUE"),
    ],
)
def test_bad_command_lines(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        main(["--workers", "0", "--study", str(tmp_path / "study"), *arguments])
    assert not (tmp_path / "study").exists()


def test_a_missing_package_is_named(tmp_path):
    if importlib.util.find_spec("ray"):
        pytest.skip("Ray is there")
    with pytest.raises(ImportError, match=r"--engine ray needs the package ray: pip install 'ram-envs\[ray\]'"):
        main(["--engine", "ray", "--study", str(tmp_path), *SMALL])


# An algorithm that learns nothing and always makes the same move. After its first evaluation it waits for a ticket to continue.
PATIENT = """
import os, time
import numpy as np
from ram_envs.agents import register_algorithm

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
    (folder / "patient.py").write_text(PATIENT, encoding="utf-8")
    (folder / "space.yml").write_text("patient:\n  move: {choices: [0, 1, 2]}\n", encoding="utf-8")
    (folder / "tickets").mkdir()
    mine = ["--algo", "patient", "--imports", "patient", "--space", "space.yml", "--study", "study", "--workers", "2"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    command = subprocess.Popen([sys.executable, SCRIPT, *mine, *GAME, *options], cwd=folder, env=environment)
    return command, lambda *names: [(folder / "tickets" / name).touch() for name in names]


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, "the search ended"
        time.sleep(0.05)


@pytest.mark.parametrize("engine", ["optuna", "ray"])
def test_two_workers_killed_in_mid_trial_lose_their_trials_and_nothing_else(engine, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray")
    command, give_tickets = search_with_patience(tmp_path, "--trials", "5", "--engine", engine)
    give_tickets("1", "2")
    study = tmp_path / "study"
    wait_until(lambda: list(study.glob("trial_*")), command)
    search = open_search(study)

    def under_way():
        return [trial for trial in search.trials(TrialState.RUNNING) if trial.intermediate_values]

    wait_until(lambda: len(search.trials(TrialState.COMPLETE)) == len(under_way()) == 2, command)
    finished, lost = search.trials(TrialState.COMPLETE), under_way()
    for trial in lost:
        os.kill(trial.user_attrs["pid"], signal.SIGKILL)
    wait_until(lambda: len(search.trials(TrialState.FAIL)) == len(under_way()) == 2, command)
    give_tickets("3", "4", "5")
    assert command.wait() == 0
    assert [trial.number for trial in search.trials(TrialState.FAIL)] == [trial.number for trial in lost]
    kept = {trial.number: (trial.value, trial.params) for trial in search.trials(TrialState.COMPLETE)}
    assert len(kept) == 5
    assert all(kept[trial.number] == (trial.value, trial.params) for trial in finished)
    assert read_file(study / "best.yml", "GlimpseCatch-v0")["move"] == search.study.best_params["move"]


def test_a_study_is_resumed_on_ray(tmp_path):
    pytest.importorskip("ray")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    main(["--workers", "0", "--trials", "1", "--study", str(tmp_path), *SMALL])
    options = ["--engine", "ray", "--sampler", "tpe", "--pruner", "median", "--study", str(tmp_path), *SMALL]
    subprocess.run([sys.executable, SCRIPT, "--trials", "2", *options], env=environment, check=True)
    table = read_table(tmp_path)
    assert [line["state"] for line in table] == ["complete", "complete"]
    assert table[0]["learning_rate"] != table[1]["learning_rate"]
