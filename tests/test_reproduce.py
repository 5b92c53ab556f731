from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from finished_runs import finish_run

from ram_envs.agents.training.config import read_hyperparams
from ram_envs.agents.training.run import open_run, store
from ram_envs.benchmarks.reproduce import main, parse, plan, wanted
from ram_envs.benchmarks.results import read_results
from train_agent import parse_config

ROOT = Path(__file__).resolve().parent.parent
MNIST, CATCH = "GlimpseMNIST-v0", "GlimpseCatch-v0"
CLUTTERED, LARGE = "GlimpseClutteredMNIST-v0", "GlimpseClutteredMNIST100-v0"
ONE = ["--rows", CATCH, "--presets", "best", "--seeds", "1", "--jobs", "1"]

# Stands in for train_agent.py: notes what was asked and leaves a result; Catch fails until there is a file "mended".
STAND_IN = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from finished_runs import finish_run

with open("asked", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
asked = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if asked["--env"] == "GlimpseCatch-v0" and not Path("mended").exists():
    sys.exit("it broke")
run = Path(asked["--folder"])
finish_run(run / "made", asked["--env"], seed=int(asked["--seed"]), preset=asked["--preset"])
for path in (run / "made").iterdir():
    path.rename(run / path.name)
"""


@pytest.fixture
def reproduce(tmp_path, monkeypatch):
    """Runs command lines in a folder of their own with the stand-in."""
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "train.py"
    script.write_text(STAND_IN.format(paths=[str(ROOT / "tests"), str(ROOT)]), encoding="utf-8")
    return lambda *arguments: main(list(arguments), script)


def names(*arguments):
    return [f"{entry.env_id}/{entry.run(seed)}" for entry, seed in wanted(parse(list(arguments)))]


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


def test_the_command_of_an_entry():
    options = ["--rows", MNIST, "--presets", "best", "--seeds", "1", "--glimpses", "all", "--others", "--device", "cpu"]
    first, fewer, *_, conv = plan(parse(options))
    folder = str(Path("logs/tables/GlimpseMNIST-v0/ram_best_seed0"))
    assert list(first.command[2:]) == [*f"--env {MNIST} --preset best --seed 0 --device cpu --folder".split(), folder]
    steps = read_hyperparams(parse_config(first.command[2:]))[0]["n_timesteps"] * 2 // 7
    glimpses = ("--env-kwargs", "num_glimpses:2", "-n", str(steps))
    assert fewer.command[2:12] == ("--env", MNIST, "--preset", "best", *glimpses, "--seed", "0")
    assert parse_config(fewer.command[2:]).env_kwargs == {"num_glimpses": 2}
    assert conv.command[2:6] == ("--algo", "conv", "--env", MNIST)


def test_every_entry_of_the_tables_has_hyperparameters_that_leave_its_task_as_it_is():
    assert len(plan(parse(["--seeds", "1", "--glimpses", "all", "--others"]))) == 10 + 2 * 11 + 11


def test_a_failed_run_is_told_and_the_same_command_resumes(reproduce, capsys):
    command = ["--rows", CATCH, MNIST, "--presets", "best", "--seeds", "1", "--jobs", "1"]
    assert reproduce(*command) == 1
    out, err = capsys.readouterr()
    assert "[1/2] GlimpseCatch-v0/ram_best_seed0: failed with exit status 1" in out
    assert "it broke" in err
    assert [(one["env"], one["run"]) for one in read_results(Path("results/tables.jsonl"))] == [(MNIST, "ram_best_seed0")]
    Path("mended").touch()
    assert reproduce(*command) == 0
    assert "2 runs, 1 finished already" in capsys.readouterr().out
    assert [line.split()[1] for line in Path("asked").read_text("utf-8").splitlines()] == [CATCH, MNIST, CATCH]
    assert [(one["env"], one["seed"]) for one in read_results(Path("results/tables.jsonl"))] == [(CATCH, 0), (MNIST, 0)]


def finish_by_hand(folder, arguments, **changes):
    """A run of train_agent.py as it ends, with the hyperparameters that these arguments have."""
    config = parse_config(arguments)
    hyperparams, env_kwargs = read_hyperparams(config)
    asked = {"algo": config.algo, "preset": config.preset, "hyperparams": hyperparams, "env_kwargs": env_kwargs}
    finish_run(Path(folder), config.env, seed=3, **{**asked, **changes})


def test_runs_made_by_hand_are_published(reproduce, capsys):
    steps = read_hyperparams(parse_config(["--env", MNIST, "--preset", "paper"]))[0]["n_timesteps"] * 4 // 7
    finish_by_hand("logs/a", ["--env", MNIST, "--preset", "paper", "--env-kwargs", "num_glimpses:4", "-n", str(steps)])
    finish_by_hand("logs/b", ["--env", MNIST, "--algo", "conv"])
    assert reproduce("--publish", "logs/a", "logs/b", "--results", "kept.jsonl") == 0
    runs = [result["run"] for result in read_results(Path("kept.jsonl"))]
    assert runs == ["conv_seed3", "ram_paper_4glimpses_seed3"]
    assert "logs/a published as ram_paper_4glimpses_seed3 in kept.jsonl" in capsys.readouterr().out


def test_nothing_is_published_where_something_does_not_belong(reproduce):
    finish_by_hand("logs/a", ["--env", MNIST, "--preset", "paper"])
    finish_by_hand("logs/b", ["--env", MNIST])
    finish_by_hand("logs/c", ["--env", MNIST, "--preset", "paper", "-n", "500"])
    for folder, message in (
        ("logs/b", "logs/b belongs to no entry of the tables: algo in"),
        ("logs/c", "logs/c holds a run with n_timesteps=500, its hyperparameters have "),
        ("logs/d", "logs/d holds no result.json"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            reproduce("--publish", "logs/a", folder)
    assert not Path("results").exists()


def test_a_run_with_other_hyperparameters_is_not_taken(reproduce):
    [job] = plan(parse(ONE))
    run = open_run(parse_config(job.command[2:]))
    run.hyperparams["n_timesteps"] = 1000
    store(run, torch.device("cpu"))
    with pytest.raises(
        ValueError, match=r"ram_best_seed0 holds a run with n_timesteps=1000, its hyperparameters have 6000000 now"
    ):
        reproduce(*ONE)
    assert not Path("asked").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "Catch-v0"], "argument --rows: invalid choice: 'Catch-v0'"),
        (["--presets", "fast"], "argument --presets: invalid choice: 'fast'"),
        (["--seeds", "0"], "--seeds: must be above 0, got 0"),
        (["--other-seeds", "-1"], "--other-seeds: must be above 0, got -1"),
    ],
)
def test_bad_input_is_named(options, message, reproduce, capsys):
    with pytest.raises(SystemExit):
        reproduce(*options)
    assert message in capsys.readouterr().err
    assert not Path("asked").exists()
