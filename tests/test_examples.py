"""The examples of docs/examples run, do what they say, and are what docs/algorithms.md shows."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DATASET

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
WHOLE = ("glimpse_size:28", "initial_location:center", "location_grid:1")  # The whole digit at a glance.


@pytest.fixture
def load(monkeypatch):
    """Imports an example."""

    def load_example(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load_example


def test_bare_loop(load, capsys):
    main = load("bare_loop").main
    assert main(["--num-envs", "100", "--episodes", "2000"]) == (1, 1)
    assert capsys.readouterr().out == "follow: mean return 1.000, 100.0 % of 2000 balls caught\n"
    mean_return, caught = main(["--policy", "random", "--num-envs", "100", "--episodes", "1000"])
    assert 0 < mean_return == caught < 0.2


def test_the_paper_in_one_file_learns(load, capsys):
    pytest.importorskip("torch")
    error = load("ram").main(["--epochs", "0.2"])
    assert error < 0.7  # Of ten classes, after 78 updates.
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{error:.2%} of 10,000 validation images wrong, after ")


def test_the_paper_in_one_file_is_short_and_stands_alone():
    code = (EXAMPLES / "ram.py").read_text("utf-8")
    assert len(code.splitlines()) <= 100
    assert not re.search(r"import (agents|stable_baselines3)|from (agents|stable_baselines3)", code)


def test_cleanrl_style(load):
    pytest.importorskip("torch")
    options = ["--total-timesteps", "12800", "--num-envs", "64", "--num-steps", "2", "--learning-rate", "0.003"]
    fewer = ["--update-epochs", "2", "--num-minibatches", "2"]
    env = ["--env-kwargs", " ".join(["num_glimpses:2", f"dataset:{DATASET}", *WHOLE])]
    returns = load("cleanrl_style").main([*options, *fewer, *env])
    assert len(returns) == 12800 // (64 * 2)
    assert sum(returns[:5]) / 5 < 0.3 < 0.5 < sum(returns[-10:]) / 10


def test_sb3_learns(load):
    pytest.importorskip("stable_baselines3")
    options = ["--steps", "6272", "--episodes", "300"]
    assert load("sb3").main([*options, "--env-kwargs", "num_glimpses:1", f"dataset:{DATASET}", *WHOLE]) > 0.5


@pytest.mark.parametrize("algo", ["a2c", "recurrent_ppo", "dqn", "sac", "td3"])
def test_sb3s_other_algorithms(load, capsys, algo):
    pytest.importorskip("sb3_contrib" if algo == "recurrent_ppo" else "stable_baselines3")
    reward = load("sb3").main(["--algo", algo, "--steps", "896", "--episodes", "64", "--env-kwargs", f"dataset:{DATASET}"])
    assert 0 <= reward <= 1
    assert capsys.readouterr().out.startswith(f"{algo}, 896 steps: ")


def test_rllib_learns_catch(tmp_path):
    """On the smallest screen, played by a process of its own, which has to register the environments itself."""
    pytest.importorskip("ray")
    command = [sys.executable, EXAMPLES / "rllib_catch.py", "--size", "6", "--iterations", "20", "--num-env-runners", "1"]
    # Ray keeps a token in the home folder.
    env = {**os.environ, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    caught = [float(share) for share in re.findall(r"steps: ([\d.]+) % of balls caught", run.stdout)]
    assert len(caught) == 20
    assert caught[0] < 45 < 55 < caught[-1]


def test_the_page_shows_what_the_examples_do():
    page = (ROOT / "docs" / "algorithms.md").read_text("utf-8")
    section = page.split("## Other libraries, in a few lines")[1].split("\n## ")[0]
    shown = re.findall(r"\(examples/(\w+\.py)\).*?```python[^\n]*\n(.*?)```", section, re.DOTALL)
    assert {name for name, _ in shown} == {"sb3.py", "cleanrl_style.py", "rllib_catch.py", "ram.py", "bare_loop.py"}
    for name, block in shown:
        code = (
            (EXAMPLES / name)
            .read_text("utf-8")
            .replace(", **options", "")
            .replace("return model.learn(steps)", "model.learn(500_000)")
        )
        said = {line.partition("  # noqa")[0].strip() for line in code.splitlines()}
        for line in block.splitlines():
            assert line.strip() in said, f"{name} has no {line!r}"


@pytest.mark.parametrize(
    ("name", "page"), [("sum_of_two", "own-task"), ("moving_digit", "own-task"), ("linear_reinforce", "algorithms")]
)
def test_pages_show_these_examples_whole(name, page):
    code = (EXAMPLES / f"{name}.py").read_text("utf-8").partition('"""\n\n')[2]
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    assert code.removeprefix("import numpy as np\n\nimport ram_envs\n\n\n") in text


def test_an_algorithm_of_ones_own_learns(load):
    pytest.importorskip("stable_baselines3")
    from ram_envs.agents import make_vec_env

    options = {"num_glimpses": 1, "initial_location": "center", "glimpse_size": 28, "dataset": DATASET}
    learn = load("linear_reinforce").linear_reinforce(make_vec_env("GlimpseMNIST-v0", 100, **options), seed=0)
    for steps, act in learn:  # noqa: B007
        if steps == 30_000:
            break
    env = make_vec_env("GlimpseMNIST-v0", 500, split="validation", **options)
    _, rewards, _, _ = env.step(act(env.reset())[0])
    assert rewards.mean() > 0.5  # Of ten classes.
