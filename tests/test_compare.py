import json
import sys
from pathlib import Path

import gymnasium as gym
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from ram_envs.agents.training.run import open_run, store
from ram_envs.benchmarks.compare import main, pairs_for, parse, plan
from ram_envs.benchmarks.results import read_results
from train_agent import parse_config

ROOT = Path(__file__).resolve().parent.parent
SHORT = ["--envs", "GlimpseCatch-v0", "-n", "1000", "--jobs", "1"]

# Stands in for train_agent.py: notes that it was started and leaves a result; "a2c" fails until there is a file "mended".
STAND_IN = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from finished_runs import finish_run

asked = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open("starts", "a") as file:
    file.write(asked["--algo"] + asked["--seed"] + " ")
if asked["--algo"] == "a2c" and not Path("mended").exists():
    sys.exit("it broke")
run = Path(asked["--folder"])
finish_run(run / "made", asked["--env"], asked["--algo"], int(asked["--seed"]), error=50.0, n_timesteps=1000)
for path in (run / "made").iterdir():
    path.rename(run / path.name)
"""


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Runs command lines in a folder of their own with the stand-in."""
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "train.py"
    script.write_text(STAND_IN.format(paths=[str(ROOT / "tests"), str(ROOT)]), encoding="utf-8")
    return lambda *arguments: main(list(arguments), script)


def starts():
    """The runs that the stand-in was started for."""
    return Path("starts").read_text("utf-8").split() if Path("starts").exists() else []


def test_all_of_a_seed_comes_first_and_more_seeds_run_what_is_missing(compare, capsys):
    assert compare("--algos", "ram", "ppo", "--seeds", "2", *SHORT) == 0
    assert starts() == ["ram0", "ppo0", "ram1", "ppo1"]
    assert "[4/4] GlimpseCatch-v0/ppo_seed1: success 50.00 %, 1,000 steps, 181 CPU seconds" in capsys.readouterr().out
    assert compare("--algos", "ram", "ppo", "sac", "--seeds", "3", *SHORT) == 0
    assert starts()[4:] == ["sac0", "sac1", "ram2", "ppo2", "sac2"]
    assert "9 runs, 4 finished already" in capsys.readouterr().out
    results = read_results(Path("logs/compare/results.jsonl"))
    assert len(results) == 9
    command = "python benchmarks/compare.py --algos ram ppo sac --seeds 3 --envs GlimpseCatch-v0 -n 1000 --jobs 1"
    assert {result["comparison_command"] for result in results} == {command}
    assert all(result["summary"] for result in results)
    # A command whose runs are a part of these takes no credit for them.
    assert compare("--algos", "ram", "--seeds", "1", *SHORT) == 0
    assert {one["comparison_command"] for one in read_results(Path("logs/compare/results.jsonl"))} == {command}
    assert command in Path("logs/compare/leaderboard.md").read_text("utf-8")


def test_a_failed_run_is_told_and_the_others_go_on(compare, capsys):
    command = ["--algos", "a2c", "ram", "--seeds", "1", *SHORT]
    assert compare(*command) == 1
    out, err = capsys.readouterr()
    assert "[1/2] GlimpseCatch-v0/a2c_seed0: failed with exit status 1" in out
    assert "a2c_seed0 failed" in err and "it broke" in err and "runs/GlimpseCatch-v0/a2c_seed0/log.txt" in err
    assert "a2c |" not in Path("logs/compare/leaderboard.md").read_text("utf-8")
    Path("mended").touch()
    assert compare(*command) == 0
    assert starts() == ["a2c0", "ram0", "a2c0"]
    assert "a2c |" in Path("logs/compare/leaderboard.md").read_text("utf-8")


def test_page_and_results_are_written_where_they_are_wanted(compare):
    places = ["--out", "runs", "--page", "docs/board.md", "--results", "kept/study.jsonl"]
    assert compare("--algos", "ram", "--seeds", "1", *SHORT, *places) == 0
    assert [result["run"] for result in read_results(Path("kept/study.jsonl"))] == ["ram_seed0"]
    assert {path.name for path in Path("docs").rglob("*.*")} == {"board.md", "GlimpseCatch-v0.png"}


def test_pairs_that_cannot_go_together_are_left_out(compare, capsys):
    assert compare("--algos", "fc64", "ram", "--seeds", "1", *SHORT) == 0
    assert "Left out: fc64 on GlimpseCatch-v0: " in capsys.readouterr().out
    assert starts() == ["ram0"]


def test_hyperparameters_are_those_of_all_or_of_one(tmp_path):
    options = ["--hyperparams", "n_envs:8", "ppo:n_steps:16", "--env-kwargs", "size:12", "--minutes", "0.5", "--evaluations", "3"]
    options += ["--algos", "ram", "ppo", "--envs", "GlimpseCatch-v0", "--seeds", "1", "--out", str(tmp_path)]
    ram, ppo = plan(parse(options), "the command")
    budget = ["--minutes", "0.5", "--clock", "cpu", "--evaluations", "3", "--device", "cpu"]
    changes = ["-params", "n_envs:8", "--env-kwargs", "size:12"]
    folder = ["--folder", str(tmp_path / "runs" / "GlimpseCatch-v0" / "ram_seed0")]
    expected = ["--algo", "ram", "--env", "GlimpseCatch-v0", "--seed", "0", *budget, *changes, *folder]
    assert list(ram.command[2:]) == expected
    assert ppo.command[-7:-2] == ("-params", "n_envs:8", "n_steps:16", "--env-kwargs", "size:12")
    assert ppo.facts["comparison_command"] == "the command"
    assert pairs_for(["policy_kwargs:{'a': 1}", "A:b:c:d", "B:x:1"], "A", ["A", "B"]) == ["policy_kwargs:{'a': 1}", "b:c:d"]


def test_a_run_that_was_asked_for_differently_is_not_taken(compare):
    folder = "logs/compare/runs/GlimpseCatch-v0/ppo_seed0"
    asked = ["--algo", "ppo", "--env", "GlimpseCatch-v0", "-n", "2000", "--device", "cpu", "--folder", folder]
    store(open_run(parse_config(asked)), torch.device("cpu"))
    with pytest.raises(ValueError, match=f"{folder} holds a run with n_timesteps=2000"):
        compare("--algos", "ppo", "--seeds", "1", *SHORT)
    assert not starts()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--algos", "ram"], "one of the arguments --minutes -n/--n-timesteps is required"),
        (["--algos", "ram", "-n", "0"], "--n-timesteps: must be above 0, got 0"),
        (["--algos", "ram", "-n", "10", "--seeds", "0"], "--seeds: must be above 0, got 0"),
    ],
)
def test_bad_arguments_are_named(options, message, compare, capsys):
    with pytest.raises(SystemExit):
        compare(*options)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--algos", "rom", "-n", "10"], "algo must be one of"),
        (["--algos", "ram", "-n", "10", "--envs", "GlimpseNothing-v0"], "GlimpseNothing"),
        (["--algos", "ram", *SHORT, "-params", "gamma"], "'gamma' must have the form NAME:VALUE"),
        (["--algos", "ram", *SHORT, "-params", "ram:gamma"], "'gamma' must have the form NAME:VALUE"),
        (["--algos", "ram", *SHORT, "-params", "ppo:gamma:1"], "ppo:gamma:1 is for an algorithm that is not among --algos ram"),
        (["--algos", "ram", *SHORT, "--imports", "no_such_module"], "no_such_module"),
    ],
)
def test_bad_input_is_named(options, message, compare):
    with pytest.raises((ValueError, ImportError, gym.error.Error), match=message):
        compare(*options)
    assert not starts()


OWN = '''
import torch
from stable_baselines3 import A2C
from torch.distributions import Categorical

from ram_envs.agents import register_algorithm


@register_algorithm("my_a2c", action_format="multidiscrete")
def my_a2c(env, **hyperparams):
    """SB3's A2C with rollouts of an episode."""
    return A2C("MultiInputPolicy", env, n_steps=3, **hyperparams)


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


def test_algorithms_of_ones_own_join_the_comparison(tmp_path, monkeypatch):
    """A function that returns an SB3 model, and a training loop, through the real train_agent.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "my_algorithms.py").write_text(OWN, encoding="utf-8")
    names = ["my_a2c", "my_reinforce"]
    command = ["--imports", "my_algorithms", "--algos", *names, "--envs", "GlimpseMNIST-v0", "--seeds", "1", "-n", "480"]
    command += ["--evaluations", "2", "-params", "n_envs:16", "my_reinforce:learning_rate:0.02"]
    assert main([*command, "--env-kwargs", "dataset:mnist-5k", "num_glimpses:3", "--jobs", "2"]) == 0
    page = (tmp_path / "logs/compare/leaderboard.md").read_text("utf-8")
    assert "- **my_a2c**: SB3's A2C with rollouts of an episode." in page
    assert "- **my_reinforce**: REINFORCE with one linear layer over the glimpse." in page
    table = page.split("## Glimpses, reward alone")[1].split("##")[0]
    for name in names:
        assert f"\n| {name} | " in table
        result = json.loads((tmp_path / f"logs/compare/runs/GlimpseMNIST-v0/{name}_seed0/result.json").read_text("utf-8"))
        assert result["n_timesteps"] == 480
        assert result["test_episodes"] == 500
        assert result["command"].startswith(f"python train_agent.py --algo {name} --env GlimpseMNIST-v0 --seed 0 -n 480")
        assert "--imports my_algorithms" in result["command"]
    assert result["hyperparams"]["learning_rate"] == 0.02
