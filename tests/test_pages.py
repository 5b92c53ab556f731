"""The pages of the docs say what the code does, and their figures have a row in results/."""

import fnmatch
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import ram_envs
from ram_envs import cli, env
from ram_envs.datasets import DATA_FOLDER_VARIABLE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_spec = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)

needs_mnist = pytest.mark.skipif(not os.environ.get(DATA_FOLDER_VARIABLE), reason="the figures are those of the whole of MNIST")


def run_blocks(path, changes=None):
    """Run a page's blocks of Python one after the other, changed in places; returns the names that they leave."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
        for old, new in (changes or {}).items():
            block = block.replace(old, new)
        exec(block, names)
    return names


def test_pages_are_up_to_date_and_need_no_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    assert pages.main(["--check"]) == 0, capsys.readouterr().out


def test_check_names_what_is_out_of_date(tmp_path, capsys):
    for name in pages.PAGES:
        (tmp_path / name).write_text(
            re.sub(r"^\| (`glimpse_size`|agent) \|", "| something |", (DOCS / name).read_text("utf-8"), flags=re.MULTILINE),
            encoding="utf-8",
        )
    here = ["--folder", str(tmp_path)]
    assert pages.main([*here, "--check"]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(pages.PAGES)
    assert pages.main(here) == 0
    assert pages.main([*here, "--check"]) == 0
    (tmp_path / "catch.md").write_text("a page without markers", encoding="utf-8")
    with pytest.raises(ValueError, match="must hold the lines <!-- ids: begin -->"):
        pages.main(here)


def test_each_id_is_on_a_page_with_each_option(env_id):
    [page] = [DOCS / name for name, tasks in pages.PAGES.items() if env_id in tasks]
    text = page.read_text("utf-8")
    assert f"| {env_id} |" in text
    for name in ram_envs.env_defaults(env_id):
        assert len(re.findall(rf"^\| `{name}` (\| [^|]+ )+\| \S[^|]{{5,}} \|$", text, re.MULTILINE)) == 1, name


def test_tables_are_well_formed():
    for page in (*DOCS.glob("*.md"), ROOT / "README.md"):
        for part in page.read_text("utf-8").split("\n\n"):
            if part.startswith("|"):
                assert len({row.replace("\\|", "").count("|") for row in part.splitlines()}) == 1, f"{page.name}: {part}"


def test_links_lead_somewhere():
    for page in (*DOCS.glob("*.md"), ROOT / "README.md"):
        for target, part in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")):
            if target.startswith("http"):
                continue
            found = page.parent / target if target else page
            assert found.exists(), f"{page.name}: {target}"
            if part:
                titles = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert part in anchors, f"{page.name}: {target}#{part}"


def test_what_the_page_of_the_code_names_is_there():
    text = (DOCS / "architecture.md").read_text("utf-8").partition("```")[0]
    files = [path for folder in ("ram_envs", "agents", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    source = "\n".join(path.read_text("utf-8") for path in files) + (ROOT / "train_agent.py").read_text("utf-8")
    known = {path.name for path in files} | {"train_agent.py", "test_contract.py", "pages.py"}
    assert set(re.findall(r"\w+\.py", text)) <= known
    for name in re.findall(r"`(?:ram_envs\.)?([A-Za-z_]+(?:\.[a-z_]+)?)`", text):
        assert all(re.search(rf"\b{part}\b", source) for part in name.split(".")), name


@pytest.mark.parametrize(
    ("page", "studies"), [("research.md", ("research", "tables", "attention")), ("results.md", ("everyday", "research"))]
)
def test_figures_are_those_of_their_rows(page, studies):
    """Each figure with two decimals, in a row or paragraph that names runs, is a number of those runs."""
    rows = {}
    for study in studies:
        for line in (ROOT / "results" / f"{study}.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            rows.setdefault(row["run"], []).append(row)
    text = re.sub(r"<!-- tables: begin -->.*<!-- tables: end -->", "", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)
    for paragraph in text.partition("## Speed")[0].split("\n\n"):
        for part in paragraph.splitlines() if paragraph.startswith("|") else [paragraph]:
            patterns = [name for name in re.findall(r"`(\w+_\w+\*?)`", part) if fnmatch.filter(rows, name)]
            named = [row for pattern in patterns for name in fnmatch.filter(rows, pattern) for row in rows[name]]
            known = {number for row in named for number in numbers(row)}
            figures = {float(figure) for figure in re.findall(r"(?<![\d.:_])\d+\.\d\d(?!\d)", part)} if named else set()
            assert figures <= known, f"{sorted(figures - known)} in {part}"


def numbers(value):
    """All numbers in a row, with two decimals."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, float | int):
        yield round(value, 2)


@needs_mnist
def test_what_the_common_page_says_is_true(tmp_path, monkeypatch, capsys):
    for module in ("moviepy", "pygame", "stable_baselines3"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    names = run_blocks(DOCS / "environments.md")
    choices, error = capsys.readouterr().out.splitlines()[:2]
    assert choices == "{'class': 10, 'stop': 2}"
    assert float(error) == pytest.approx(88.65)
    assert names["patches"].shape == (5, 2, 8, 8)
    np.testing.assert_allclose(names["action"]["location"], [0.4, -0.4], atol=1e-6)
    assert (names["action"]["class"], names["action"]["stop"]) == (7, 0)
    assert names["evaluation"].num_episodes == 10_000
    assert gym.utils.env_checker.data_equivalence(names["first"], names["again"])
    assert (tmp_path / "videos" / "rl-video-episode-0.mp4").is_file()


# So that pages take seconds: what they say, and what is run instead.
SHORTER = {
    "1_000_000, progress_bar=True": "1_000",
    "learn(1_000_000)": "learn(1_000)",
    '"MultiInputPolicy", env': '"MultiInputPolicy", env, n_steps=4',
    "n_steps=4, n_steps=14": "n_steps=14",
    "learn(100_000)": "learn(64)",
    "learn(500_000)": "learn(64)",
    "minutes=1": "n_timesteps=1_280",
}
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
ELSEWHERE = ("environments.md", "pretrained.md")  # Below, and in test_docs_figures.py.
PYTHON_PAGES = [path for path in PAGES if "```python\n" in path.read_text("utf-8") and path.name not in ELSEWHERE]


@needs_mnist
@pytest.mark.parametrize("path", PYTHON_PAGES, ids=lambda path: path.stem)
def test_the_blocks_of_each_page_run_from_its_top(path, tmp_path, monkeypatch):
    for module in ("moviepy", "pygame", "sb3_contrib"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    training = importlib.import_module("ram_envs.agents.training.registry")
    monkeypatch.setattr(training, "_ALGORITHMS", dict(training._ALGORITHMS))
    monkeypatch.setattr(env, "_TASKS", {name: task for name, task in env._TASKS.items() if not name.endswith("-v0")})
    for env_id in ("SumOfTwo-v0", "MovingDigit-v0"):
        monkeypatch.delitem(gym.registry, env_id)
    if path.name == "own-images.md":  # What its first lines ask for.
        subprocess.run([sys.executable, DOCS / "examples" / "shapes.py", "shapes"], check=True)
    run_blocks(path, SHORTER)


COMMANDS = [
    (path.name, line.partition("  #")[0])
    for path in PAGES
    for block in re.findall(r"```bash[^\n]*\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"(python train_agent.py|ram-envs (train|evaluate|record|watch|looks)) ", line)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_of_the_pages_are_understood(page, line):
    pytest.importorskip("torch")
    train_agent = importlib.import_module("train_agent")
    words = shlex.split(line.replace("ram-envs", "", 1) if line.startswith("ram-envs") else line.partition(".py")[2])
    before = [] if line.startswith("python") else cli.COMMANDS[words.pop(0)][1]
    train_agent.make_parser().parse_args([*before, *words])


@needs_mnist
def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    for module in ("stable_baselines3", "pygame", "imageio"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    cells = json.loads((DOCS / "tutorial.ipynb").read_text("utf-8"))["cells"]
    names = {}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        exec("".join(cell["source"]).replace("1_000_000", "1_000"), names)
    assert "% of 10,000 images wrong" in capsys.readouterr().out
    assert (tmp_path / "looking.gif").stat().st_size > 10_000
    assert names["model"].num_timesteps >= 1_000


def test_versions_agree(capsys):
    citation, changes = ((ROOT / name).read_text("utf-8") for name in ("CITATION.cff", "CHANGELOG.md"))
    assert f"\nversion: {ram_envs.__version__}\n" in citation
    assert re.search(r"^## (.*)$", changes, re.MULTILINE)[1] == ram_envs.__version__
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"ram-envs {ram_envs.__version__}\n"
