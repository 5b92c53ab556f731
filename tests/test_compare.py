import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from agents import trial
from agents.trial import Trial, open_run
from benchmarks import cells, compare, matrix
from benchmarks.compare import main
from benchmarks.matrix import pairs_for
from benchmarks.results import read_comparison, read_runs

ROOT = Path(__file__).resolve().parent.parent
SHORT = ["--envs", "GlimpseCatch-v0", "-n", "1000", "--jobs", "1"]

# Stands in for train_agent.py: notes that it was started and leaves a result; "a2c" fails until there is a file "mended".
STAND_IN = """
import json, sys
from pathlib import Path
import numpy as np

folder = Path("here")
asked = dict(zip(sys.argv[1::2], sys.argv[2::2]))
run = Path(asked["--folder"])
with open(folder / "starts", "a") as file:
    file.write(f"{asked['--algo']}{asked['--seed']} ")
if asked["--algo"] == "a2c" and not (folder / "mended").exists():
    sys.exit("it broke")
one = np.full((1, 4), 0.5)
curve = {"timesteps": [1000], "train_seconds": [1.0], "cpu_seconds": [0.9], "successes": one, "results": one, "ep_lengths": one}
np.savez(run / "evaluations.npz", **curve)
result = {"env": asked["--env"], "algo": asked["--algo"], "seed": int(asked["--seed"]), "success_rate": 0.5, "mean_reward": 0.5,
          "n_timesteps": 1000, "train_seconds": 1.0, "train_cpu_seconds": 0.9, "commit": "c0", "machine": "m", "torch": "t"}
(run / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A folder in which train_agent.py is the stand-in; returns the starts so far."""
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    Path("train.py").write_text(STAND_IN)
    monkeypatch.setattr(cells, "TRAIN", tmp_path / "train.py")
    return lambda: Path("here/starts").read_text().split()


def test_all_of_a_seed_comes_first_and_more_seeds_run_what_is_missing(stand_in, capsys):
    assert main(["--algos", "ram", "ppo", "--seeds", "2", *SHORT]) == 0
    assert stand_in() == ["ram0", "ppo0", "ram1", "ppo1"]
    assert "[4/4] GlimpseCatch-v0/ppo_seed1: success 50.00 %, 1,000 steps, 1 CPU seconds" in capsys.readouterr().out
    assert main(["--algos", "ram", "ppo", "sac", "--seeds", "3", *SHORT]) == 0
    assert stand_in()[4:] == ["sac0", "sac1", "ram2", "ppo2", "sac2"]
    assert "9 runs, 4 finished already" in capsys.readouterr().out
    assert len(read_runs(Path("logs/compare/results"))) == 9
    comparison = read_comparison(Path("logs/compare/results"))
    command = "python benchmarks/compare.py --algos ram ppo sac --seeds 3 --envs GlimpseCatch-v0 -n 1000 --jobs 1"
    assert [entry["command"] for entry in comparison["commands"]] == [command]
    assert comparison["algorithms"]["ram"]["summary"]
    assert command in Path("logs/compare/leaderboard.md").read_text()


def test_a_failed_run_is_told_and_the_others_go_on(stand_in, capsys):
    command = ["--algos", "a2c", "ram", "--seeds", "1", *SHORT]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "[1/2] GlimpseCatch-v0/a2c_seed0: failed with exit status 1" in out
    assert "a2c_seed0 failed" in err and "it broke" in err and "runs/GlimpseCatch-v0/a2c_seed0/log.txt" in err
    assert "a2c |" not in Path("logs/compare/leaderboard.md").read_text()
    Path("here/mended").touch()
    assert main(command) == 0
    assert stand_in() == ["a2c0", "ram0", "a2c0"]
    assert "a2c |" in Path("logs/compare/leaderboard.md").read_text()


def test_page_and_results_go_where_they_are_wanted(stand_in):
    assert main(["--algos", "ram", "--seeds", "1", *SHORT, "--out", "runs", "--page", "docs/board.md", "--results", "kept"]) == 0
    names = {str(path.relative_to("kept")) for path in Path("kept").rglob("*.*")}
    assert names == {"comparison.json", "GlimpseCatch-v0/ram_seed0.json", "GlimpseCatch-v0/ram_seed0.csv"}
    assert {path.name for path in Path("docs").rglob("*.*")} == {"board.md", "board.csv", "GlimpseCatch-v0.png"}


def test_pairs_that_cannot_go_together_are_left_out(stand_in, capsys):
    assert main(["--algos", "fc64", "ram", "--seeds", "1", *SHORT]) == 0
    assert "Left out: fc64 on GlimpseCatch-v0: " in capsys.readouterr().out
    assert stand_in() == ["ram0"]


def test_settings_go_to_all_or_to_one(stand_in):
    options = ["--params", "n_envs:8", "ppo:n_steps:16", "--env-kwargs", "size:12", "--minutes", "0.5", "--evaluations", "3"]
    options = compare.parse(["--algos", "ram", "ppo", "--envs", "GlimpseCatch-v0", "--seeds", "1", *options])[0]
    ram, ppo = matrix.plan(options)
    folder = str(Path("logs/compare/runs/GlimpseCatch-v0/ram_seed0"))
    budget = ["--minutes", "0.5", "--clock", "cpu", "--evaluations", "3", "--device", "cpu"]
    expected = ["--algo", "ram", "--env", "GlimpseCatch-v0", "--seed", "0", *budget, "--folder", folder]
    assert list(ram.arguments) == [*expected, "-params", "n_envs:8", "--env-kwargs", "size:12"]
    assert ppo.arguments[-5:] == ("-params", "n_envs:8", "n_steps:16", "--env-kwargs", "size:12")
    assert pairs_for(["policy_kwargs:{'a': 1}", "A:b:c:d", "B:x:1"], "A", ["A", "B"]) == ["policy_kwargs:{'a': 1}", "b:c:d"]


def kept_run(**changes):
    """A run as train_agent.py begins it."""
    folder = "logs/compare/runs/GlimpseCatch-v0/ppo_seed0"
    open_run(
        Trial(**{"env": "GlimpseCatch-v0", "folder": folder, "algo": "ppo", "n_timesteps": 1000, "device": "cpu", **changes})
    )


def test_a_run_that_was_asked_for_differently_is_not_taken(stand_in, capsys):
    kept_run(n_timesteps=2000)
    with pytest.raises(SystemExit):
        main(["--algos", "ppo", "--seeds", "1", *SHORT])
    assert "logs/compare/runs/GlimpseCatch-v0/ppo_seed0 holds a run with n_timesteps=2000" in capsys.readouterr().err
    assert not Path("here/starts").exists()


def test_a_run_with_other_hyperparameters_is_not_taken(stand_in, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(trial, "HYPERPARAMS", tmp_path)
    Path("ppo.yml").write_text("GlimpseCatch-v0: {learning_rate: 0.1, env_kwargs: {size: 12}}")
    kept_run()
    assert main(["--algos", "ppo", "--seeds", "1", *SHORT]) == 0
    Path("ppo.yml").write_text("GlimpseCatch-v0: {learning_rate: 0.2, env_kwargs: {size: 12}}")
    with pytest.raises(SystemExit):
        main(["--algos", "ppo", "--seeds", "1", *SHORT])
    assert "ppo_seed0 holds a run with learning_rate=0.1, its settings have 0.2 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--algos", "ram"], "one of the arguments --minutes -n/--n-timesteps is required"),
        (["--algos", "ram", "-n", "0"], "--n-timesteps must be above 0, got 0"),
        (["--algos", "ram", "-n", "10", "--seeds", "0"], "--seeds must be above 0, got 0"),
        (["--algos", "rom", "-n", "10"], "algo must be one of"),
        (["--algos", "ram", "-n", "10", "--envs", "GlimpseNothing-v0"], "GlimpseNothing"),
        (["--algos", "ram", *SHORT, "--params", "gamma"], "'gamma' must have the form NAME:VALUE"),
        (["--algos", "ram", *SHORT, "--params", "ram:gamma"], "'gamma' must have the form NAME:VALUE"),
        (["--algos", "ram", *SHORT, "--params", "ppo:gamma:1"], "ppo:gamma:1 is for an algorithm that is not among --algos ram"),
        (["--algos", "ram", *SHORT, "--imports", "no_such_module"], "no_such_module"),
    ],
)
def test_bad_input_is_named(options, message, stand_in, capsys):
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err
    assert not Path("here/starts").exists()


OWN = '''
import torch
from stable_baselines3 import A2C
from torch.distributions import Categorical

from agents import register_algorithm


@register_algorithm("my_a2c", action_format="multidiscrete")
def my_a2c(env, **settings):
    """SB3's A2C with rollouts of an episode."""
    return A2C("MultiInputPolicy", env, n_steps=3, **settings)


@register_algorithm("my_reinforce", action_format="discrete")
def my_reinforce(env, seed, learning_rate=0.01):
    """REINFORCE with one linear layer over the glimpse."""
    network = torch.nn.Linear(8 * 8, env.action_space.n)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)

    def choices(obs):
        return Categorical(logits=network(torch.as_tensor(obs["glimpse"]).flatten(1)))

    def predict(obs, state=None, episode_start=None, deterministic=False):
        chosen = choices(obs)
        return (chosen.probs.argmax(1) if deterministic else chosen.sample()).numpy(), state

    obs, steps = env.reset(), 0
    while True:
        chosen = choices(obs)
        actions = chosen.sample()
        obs, rewards, _, _ = env.step(actions.numpy())
        loss = -(chosen.log_prob(actions) * torch.as_tensor(rewards)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += env.num_envs
        yield steps, predict
'''


def test_algorithms_of_ones_own_join_the_comparison(tmp_path):
    """A function that returns an SB3 model, and a training loop, through the real command and the real train_agent.py."""
    (tmp_path / "my_algorithms.py").write_text(OWN)
    names = ["my_a2c", "my_reinforce"]
    command = ["--imports", "my_algorithms", "--algos", *names, "--envs", "GlimpseMNIST-v0", "--seeds", "1", "-n", "480"]
    command += ["--evaluations", "2", "--params", "n_envs:16", "my_reinforce:learning_rate:0.02"]
    command += ["--env-kwargs", "dataset:mnist-5k", "num_glimpses:3", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "compare.py"), *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "logs/compare/leaderboard.md").read_text()
    assert "- **my_a2c**: SB3's A2C with rollouts of an episode." in page
    assert "- **my_reinforce**: REINFORCE with one linear layer over the glimpse." in page
    for name in names:
        assert f"| {name} | glimpses |" in page
        result = json.loads((tmp_path / f"logs/compare/runs/GlimpseMNIST-v0/{name}_seed0/result.json").read_text())
        assert result["n_timesteps"] == 480
        assert result["test_episodes"] == 500
        assert result["command"].startswith(f"python train_agent.py --algo {name} --env GlimpseMNIST-v0 --seed 0 -n 480")
        assert result["command"].endswith("--imports my_algorithms")
    assert result["settings"]["learning_rate"] == 0.02
