"""The pages of the docs say what the code does."""

import importlib.util
import inspect
import os
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import ram_envs
from ram_envs.datasets import DATA_FOLDER_VARIABLE
from ram_envs.env import TASKS

DOCS = Path(__file__).parents[1] / "docs"
_spec = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)


def test_pages_are_up_to_date(capsys):
    assert pages.main(["--check"]) == 0, capsys.readouterr().out


def test_check_names_what_is_out_of_date(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    assert pages.main(["--check"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == len(ram_envs.ENVIRONMENTS)
    assert not list(tmp_path.iterdir())
    assert pages.main([]) == 0
    assert pages.main(["--check"]) == 0
    (tmp_path / "Catch-v0.md").write_text("something else")
    capsys.readouterr()
    assert pages.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("Catch-v0.md is out of date")


def test_pages_need_no_data(env_id, tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    assert pages.page(env_id) == (DOCS / f"{env_id}.md").read_text("utf-8")


def test_each_option_has_its_default_and_meaning(env_id):
    text = (DOCS / f"{env_id}.md").read_text("utf-8")
    task = pages.stand_in(env_id).unwrapped.task
    for name, default in pages.defaults(env_id).items():
        assert len(re.findall(rf"^\| `{name}` \| `[^|]+` \| \S[^|]{{5,}} \|$", text, re.MULTILINE)) == 1, name
        if isinstance(default, int) and hasattr(task, name):
            assert getattr(task, name) == default


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_meanings_are_those_of_the_arguments(task):
    said = pages.meanings(task)
    assert list(said) == list(inspect.signature(task).parameters)
    assert all(said.values())


def test_tables_are_well_formed(env_id):
    for part in (DOCS / f"{env_id}.md").read_text("utf-8").split("\n\n"):
        if part.startswith("|"):
            assert len({row.replace("\\|", "").count("|") for row in part.splitlines()}) == 1, part


def test_links_lead_somewhere():
    for path in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
            assert target.startswith("http") or (DOCS / target).exists(), f"{path.name}: {target}"


@pytest.mark.skipif(not os.environ.get(DATA_FOLDER_VARIABLE), reason="the figures are those of the whole of MNIST")
def test_what_the_common_page_says_is_true(tmp_path, monkeypatch, capsys):
    for module in ("moviepy", "pygame", "stable_baselines3"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "environments.md").read_text("utf-8"), re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["patches"].shape == (5, 2, 8, 8)
    np.testing.assert_allclose(names["locations"], [[0.4, -0.4]], atol=1e-6)
    assert names["choices"]["class"] == [7]
    assert float(capsys.readouterr().out.splitlines()[0]) == pytest.approx(88.65)
    assert gym.utils.env_checker.data_equivalence(names["first"], names["again"])
    assert (tmp_path / "videos" / "rl-video-episode-0.mp4").is_file()
