"""The figures and the page of the pretrained agents."""

import importlib.util
import json
import re
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pygame")

import imageio.v3 as imageio
from conftest import DATASET

import ram_envs
from ram_envs.agents import RAM, make_vec_env, save_pretrained
from ram_envs.mnist import StandInWarning

DOCS = Path(__file__).parents[1] / "docs"
_spec = importlib.util.spec_from_file_location("docs_figures", DOCS / "figures.py")
figures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(figures)

OPTIONS = {"GlimpseMNIST-v0": {"dataset": DATASET, "num_glimpses": 3}, "GlimpseCatch-v0": {"size": 6}}


def store(env_id, folder, env_kwargs=None):
    """An untrained agent as a pretrained one; returns what its result holds."""
    env_kwargs = env_kwargs or OPTIONS[env_id]
    class_loss = "reinforce" if "Catch" in env_id else "cross_entropy"
    small = {"hidden_size": 8, "core_size": 8}
    model = RAM(
        "RAMPolicy", make_vec_env(env_id, 2, **env_kwargs), seed=0, device="cpu", policy_kwargs=small, class_loss=class_loss
    )
    facts = dict.fromkeys(("n_timesteps", "seed", "validation_error", "test_error", "test_episodes"), 1)
    texts = dict.fromkeys(("command", "commit", "torch", "machine"), "")
    result = {**facts, **texts, "env_kwargs": env_kwargs}
    save_pretrained(model, folder, env_id, result)
    return result


def test_images_and_games_are_drawn(tmp_path, capsys):
    weights, out = tmp_path / "weights", tmp_path / "images"
    for env_id in OPTIONS:
        store(env_id, weights)
    figures.main(["--weights", str(weights), "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {"pretrained_GlimpseMNIST-v0.png", "pretrained_GlimpseCatch-v0.gif"}
    height, width = imageio.improps(out / "pretrained_GlimpseMNIST-v0.png").shape[:2]
    assert height > width > 400  # Eight rows of an image and three glimpses.
    video = imageio.improps(out / "pretrained_GlimpseCatch-v0.gif")
    assert video.shape[0] == 6 * (1 + 5)  # Six games of a first picture and five steps.
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_nothing_is_drawn_of_digits_that_stand_in_for_mnist(tmp_path):
    def load(split):
        warnings.warn("a few digits stand in", StandInWarning, stacklevel=1)
        return ram_envs.load_images(DATASET, split)

    ram_envs.register_dataset("standing-in", load)
    with pytest.warns(StandInWarning):
        store("GlimpseMNIST-v0", tmp_path, {"dataset": "standing-in"})
    with pytest.raises(StandInWarning, match="a few digits"):
        figures.main(["--weights", str(tmp_path), "--out", str(tmp_path / "images")])
    assert not (tmp_path / "images").exists()


def test_without_weights_nothing_is_drawn(tmp_path, capsys):
    figures.main(["--weights", str(tmp_path), "--out", str(tmp_path)])
    assert capsys.readouterr().out == f"There are no weights in {tmp_path}: nothing to draw\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env_id", OPTIONS)
def test_the_page_can_be_followed(env_id, tmp_path, monkeypatch, capsys):
    """With an untrained agent out of a folder instead of the package's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps(store(env_id, tmp_path / "weights")), encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "pretrained.md").read_text("utf-8"), re.DOTALL):
        block = block.replace("pretrained_ids()", "pretrained_ids('weights')").replace("1_000_000", "1_000")
        block = re.sub(
            r"(pretrained_hyperparams|load_pretrained)\((env_id|env_id, make_vec_env\(.*\))\)", r"\1(\2, folder='weights')", block
        )
        exec(block, names)
    played, error = capsys.readouterr().out.splitlines()
    assert played in ("True", "False")
    assert 0 <= float(error) <= 100
    assert names["model"].policy.options.hidden_size == 8
    assert (tmp_path / "video.gif").is_file()
    assert (tmp_path / "my_weights" / f"{env_id}.md").is_file()
