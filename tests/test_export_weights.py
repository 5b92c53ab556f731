import json
import re
import shutil

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file

from ram_envs.agents import RAM, load_pretrained, pretrained_ids
from ram_envs.agents.training.config import RunConfig
from ram_envs.agents.training.run import run
from ram_envs.benchmarks.export_weights import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a very short run."""
    folder = tmp_path_factory.mktemp("logs") / "run_1"
    options = {"evaluations": 1, "n_envs": 32, "figures": False, "device": "cpu", "command": "python train_agent.py", "seed": 5}
    env_kwargs = {"dataset": "mnist-5k", "num_glimpses": 3}
    run(RunConfig("GlimpseMNIST-v0", folder, n_timesteps=192, env_kwargs=env_kwargs, **options))
    return folder


def copy(folder, to, **changes):
    """The run again, with another result."""
    shutil.copytree(folder, to)
    result = json.loads((to / "result.json").read_text("utf-8"))
    (to / "result.json").write_text(json.dumps({**result, **changes}), encoding="utf-8")
    return to


def refused(capsys, *arguments):
    """What the command line says against them."""
    with pytest.raises(SystemExit):
        main([str(argument) for argument in arguments])
    return " ".join(capsys.readouterr().err.split())


def test_the_best_on_validation_is_stored(finished, tmp_path):
    result = json.loads((finished / "result.json").read_text("utf-8"))
    # Others are better on test, or as good on validation and later.
    worse = copy(finished, tmp_path / "worse", validation_error=result["validation_error"] + 1, test_error=0.1, seed=6)
    equal = copy(finished, tmp_path / "equal", test_error=0.2, seed=7)
    to = tmp_path / "weights"
    path = main([str(worse), str(finished), str(equal), "--to", str(to)])
    assert path == to / "GlimpseMNIST-v0.safetensors"
    assert {one.name for one in to.iterdir()} == {"GlimpseMNIST-v0.safetensors", "GlimpseMNIST-v0.md"}
    assert pretrained_ids(to) == ("GlimpseMNIST-v0",)
    best = RAM.load(finished / "best_model.zip", device="cpu").policy.state_dict()
    stored = load_file(path)
    assert stored.keys() == best.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in best.items())
    assert load_pretrained("GlimpseMNIST-v0", folder=to, device="cpu").policy.options.path_steps == 7
    rows = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", path.with_suffix(".md").read_text("utf-8"), re.MULTILINE))
    assert rows["test error"] == f"{result['test_error']:g} % of 500 images"
    assert rows["validation error"] == f"{result['validation_error']:g} % of 500 images"
    assert rows["chosen"] == "by the validation error, of the seeds 5, 6, 7"
    assert (rows["seed"], rows["command"], rows["commit"]) == ("5", "`python train_agent.py`", f"`{result['commit']}`")


def test_nothing_is_kept_that_has_another_figure(finished, tmp_path, capsys):
    wrong = copy(finished, tmp_path / "wrong", test_error=1.5)
    message = refused(capsys, wrong, "--to", tmp_path / "weights")
    assert "the stored agent must have the test error of its run, 1.5 %, got " in message
    other = copy(finished, tmp_path / "other", test_episodes=10_000)
    message = refused(capsys, other, "--to", tmp_path / "weights")
    assert "tested on the 10000 episodes of its run, there are 500 here: is it the same data set?" in message
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "GlimpseCatch-v0"}, "runs must have the same env, got 'GlimpseMNIST-v0' and 'GlimpseCatch-v0'"),
        ({"env_kwargs": {}}, "runs must have the same env_kwargs, got "),
        ({"dataset_size": 50_000}, "runs must have the same dataset_size, got 4000 and 50000"),
        ({"algo": "ram_random"}, "runs must have the same algo, got 'ram' and 'ram_random'"),
    ],
)
def test_runs_that_can_not_be_compared_are_refused(finished, tmp_path, capsys, changes, message):
    assert message in refused(capsys, finished, copy(finished, tmp_path / "other", **changes))


def test_runs_that_are_not_rams_or_not_finished_are_refused(finished, tmp_path, capsys):
    other = copy(finished, tmp_path / "other", algo="ppo")
    assert "runs must be of the algorithm ram, got ppo" in refused(capsys, other)
    (other / "best_model.zip").unlink()
    assert f"runs must be folders of finished runs, {other} has no best_model.zip" in refused(capsys, finished, other)


def test_a_run_without_a_test_is_refused(finished, tmp_path, capsys):
    other = copy(finished, tmp_path / "other")
    result = json.loads((other / "result.json").read_text("utf-8"))
    del result["test_error"]
    (other / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert "lacks test_error" in refused(capsys, other, "--to", tmp_path / "weights")
