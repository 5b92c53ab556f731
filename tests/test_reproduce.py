import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

import yaml

from agents import trial
from agents.trial import Trial, open_run, read_settings
from benchmarks import cells
from benchmarks.reproduce import main, parse, plan, wanted
from benchmarks.results import read_runs

MNIST, CATCH = "GlimpseMNIST-v0", "GlimpseCatch-v0"
CLUTTERED, LARGE = "GlimpseClutteredMNIST-v0", "GlimpseClutteredMNIST100-v0"
ONE = ["--rows", CATCH, "--presets", "best", "--seeds", "1", "--jobs", "1"]

# Stands in for train_agent.py: notes what was asked and leaves a result; Catch fails until there is a file "mended".
STAND_IN = """
import json, sys
from pathlib import Path
import numpy as np

with open("asked", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
asked = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if asked["--env"] == "GlimpseCatch-v0" and not Path("mended").exists():
    sys.exit("it broke")
run = Path(asked["--folder"])
one = np.full((1, 4), 0.5)
curve = {"timesteps": [1000], "train_seconds": [1.0], "cpu_seconds": [0.9], "successes": one, "results": one, "ep_lengths": one}
np.savez(run / "evaluations.npz", **curve)
result = {"env": asked["--env"], "algo": "ram", "preset": asked["--preset"], "seed": int(asked["--seed"]), "env_kwargs": {},
          "success_rate": 0.5, "n_timesteps": 1000, "train_cpu_seconds": 0.9}
(run / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A folder to be in, with settings of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "HYPERPARAMS", tmp_path)
    entries = {f"{env_id}/{preset}": {"n_timesteps": 1000} for env_id in (MNIST, CATCH) for preset in ("paper", "best")}
    Path("ram.yml").write_text(yaml.safe_dump(entries))


@pytest.fixture
def stand_in(settings, tmp_path, monkeypatch):
    """A folder in which train_agent.py is the stand-in; returns what was asked of it so far."""
    Path("train.py").write_text(STAND_IN)
    monkeypatch.setattr(cells, "TRAIN", tmp_path / "train.py")
    return lambda: Path("asked").read_text().splitlines()


def names(*arguments):
    return [recipe.run_name(seed) for recipe, seed in wanted(parse(list(arguments))[0])]


def test_all_of_a_seed_comes_first_and_one_seed_is_enough_for_the_rest():
    asked = ["--rows", MNIST, LARGE, "--seeds", "2"]
    first = [f"{env_id}/ram_{preset}_seed0" for env_id in (MNIST, LARGE) for preset in ("paper", "best")]
    second = [name.replace("seed0", "seed1") for name in first]
    assert names(*asked) == [*first, *second]
    fewer = [f"{MNIST}/ram_{preset}_{number}glimpses_seed0" for preset in ("paper", "best") for number in (2, 3, 4, 5, 6)]
    large = [f"{LARGE}/ram_{preset}_{number}glimpses_seed0" for preset in ("paper", "best") for number in (4, 6)]
    others = [f"{MNIST}/fc256_seed0", f"{MNIST}/conv_seed0"]
    more = [f"{LARGE}/ram_random_seed0", f"{LARGE}/conv_seed0"]
    assert names(*asked, "--glimpses", "all", "--others") == [*first, *second, *fewer, *others, *large, *more]
    assert names("--rows", CLUTTERED, "--presets", "--others", "--other-seeds", "2") == [
        f"{CLUTTERED}/{algo}_seed{seed}" for seed in (0, 1) for algo in ("ram_random", "fc64", "fc256", "conv")
    ]
    assert len(names("--glimpses", "all", "--others")) == 3 * 5 * 2 + 2 * (5 + 2 + 2 + 2) + 11


def test_the_command_of_a_row(settings):
    options = parse(["--rows", MNIST, "--presets", "best", "--seeds", "1", "--glimpses", "all", "--device", "cpu"])[0]
    first, fewer = plan(options)[:2]
    folder = str(Path("logs/tables/GlimpseMNIST-v0/ram_best_seed0"))
    assert list(first.arguments) == [*f"--env {MNIST} --preset best --seed 0 --device cpu --folder".split(), folder]
    assert fewer.arguments[:6] == ("--env", MNIST, "--preset", "best", "--env-kwargs", "num_glimpses:2")
    assert fewer.arguments[6:8] == ("-n", str(read_settings(first.trial())["n_timesteps"] * 2 // 7))
    assert fewer.trial().env_kwargs == {"num_glimpses": 2}


def test_a_failed_run_is_told_and_the_same_command_goes_on(stand_in, capsys):
    command = ["--rows", CATCH, MNIST, "--presets", "best", "--seeds", "1", "--jobs", "1"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "[1/2] GlimpseCatch-v0/ram_best_seed0: failed with exit status 1" in out
    assert "it broke" in err
    assert [path.name for path in sorted(Path("results/tables").rglob("*.*"))] == ["ram_best_seed0.csv", "ram_best_seed0.json"]
    Path("mended").touch()
    assert main(command) == 0
    assert "2 runs, 1 finished already" in capsys.readouterr().out
    assert [line.split()[1] for line in stand_in()] == [CATCH, MNIST, CATCH]
    assert [(run.env_id, run.result["seed"]) for run in read_runs(Path("results/tables"))] == [(CATCH, 0), (MNIST, 0)]


def finished_run(folder, **changes):
    """A run of train_agent.py as it ends, asked for by hand."""
    folder.mkdir(parents=True)
    one = np.ones((1, 4))
    curve = {"timesteps": [1], "train_seconds": [1.0], "cpu_seconds": [1.0], "successes": one, "results": one, "ep_lengths": one}
    np.savez(folder / "evaluations.npz", **curve)
    result = {"env": MNIST, "algo": "ram", "preset": "paper", "seed": 3, "env_kwargs": {"num_glimpses": 4}}
    result |= {"settings": {"n_timesteps": 571, "n_envs": 128, "matmul_precision": "highest"}, **changes}
    (folder / "result.json").write_text(json.dumps(result))


def test_runs_made_by_hand_are_published(settings, capsys):
    finished_run(Path("logs/a"))
    other = {"algo": "conv", "preset": None, "seed": 0}
    conv = read_settings(Trial(MNIST, "", "conv"))
    finished_run(Path("logs/b"), **other, env_kwargs={"num_glimpses": 1}, settings=conv)
    assert main(["--publish", "logs/a", "logs/b", "--results", "kept"]) == 0
    found = {path.as_posix() for path in Path("kept").rglob("*.json")}
    assert found == {f"kept/{MNIST}/ram_paper_4glimpses_seed3.json", f"kept/{MNIST}/conv_seed0.json"}
    assert f"logs/a published as kept/{MNIST}/ram_paper_4glimpses_seed3.json" in capsys.readouterr().out


def test_nothing_is_published_where_something_does_not_belong(settings, capsys):
    finished_run(Path("logs/a"))
    finished_run(Path("logs/b"), preset=None)
    finished_run(Path("logs/c"), settings={"n_timesteps": 500, "n_envs": 128, "matmul_precision": "highest"})
    for folder, message in (
        ("logs/b", "logs/b belongs to no row: algo in"),
        ("logs/c", "logs/c holds a run with n_timesteps=500, its settings have 571 now: its row is run with those"),
        ("logs/d", "logs/d holds no result.json"),
    ):
        with pytest.raises(SystemExit):
            main(["--publish", "logs/a", folder])
        assert message in capsys.readouterr().err
    assert not Path("results").exists()


def test_a_run_with_other_settings_is_not_taken(stand_in, capsys):
    cell = plan(parse(ONE)[0])[0]
    open_run(cell.trial())
    Path("ram.yml").write_text(yaml.safe_dump({f"{CATCH}/best": {"n_timesteps": 2000}}))
    with pytest.raises(SystemExit):
        main(ONE)
    assert "ram_best_seed0 holds a run with n_timesteps=1000, its settings have 2000 now" in capsys.readouterr().err
    assert not Path("asked").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "Catch-v0"], "argument --rows: invalid choice: 'Catch-v0'"),
        (["--presets", "fast"], "argument --presets: invalid choice: 'fast'"),
        (["--seeds", "0"], "--seeds must be above 0, got 0"),
        (["--other-seeds", "-1"], "--other-seeds must be above 0, got -1"),
        (["--rows", CLUTTERED], "preset must be one of those that ram.yml has for GlimpseClutteredMNIST-v0, none, got 'paper'"),
        (["--rows", LARGE, "--presets", "best"], "glimpse_size=24 makes another task of GlimpseClutteredMNIST100-v0"),
    ],
)
def test_bad_input_is_named(options, message, stand_in, capsys):
    Path("ram.yml").write_text(yaml.safe_dump({f"{LARGE}/best": {"env_kwargs": {"glimpse_size": 24}}}))
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err
    assert not Path("asked").exists()
