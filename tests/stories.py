"""Two stories of new users, from a wheel to the end, in folders of their own; run by CI.

python tests/stories.py           # builds the wheel, installs it into a folder, and does both

1. A folder of pictures: trained and filmed, no line of code.
2. A task and an algorithm of one's own: trained beside RAM, a leaderboard; 40 lines of code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--quiet"], check=True)


def run(folder, command, *arguments):
    """A command of the wheel in the folder `site`, started in another folder; returns what it printed."""
    env = {**os.environ, "PYTHONPATH": str(folder.parent / "site"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-m", "ram_envs.cli", command, *map(str, arguments)]
    print("$ ram-envs", command, *arguments, flush=True)
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pictures_to_film(folder):
    subprocess.run([sys.executable, EXAMPLES / "shapes.py", folder / "shapes"], check=True)
    shown = run(folder, "train", "--images", folder / "shapes", "--minutes", "0.2", "--clock", "cpu")
    print(shown)
    [trained] = folder.glob("logs/ram/*_1")
    run(folder, "record", "film.gif", "-i", trained, "--episodes", "2")
    assert (folder / "film.gif").stat().st_size > 10_000


def task_to_leaderboard(folder):
    lines = 0
    for name in ("sum_of_two.py", "linear_reinforce.py"):
        shutil.copy(EXAMPLES / name, folder)
        lines += sum(bool(line.strip()) for line in (EXAMPLES / name).read_text("utf-8").splitlines())
    assert lines <= 40, lines
    algos = ("--algos", "ram", "linear_reinforce:linear_reinforce", "--seeds", "1", "-n", "6400")
    run(folder, "compare", "--imports", "sum_of_two", "--envs", "SumOfTwo-v0", *algos, "--evaluations", "1", "--jobs", "1")
    page = (folder / "logs/compare/leaderboard.md").read_text("utf-8")
    print(page.partition("The cost")[0])
    assert all(f"\n| {name} |" in page for name in ("ram", "linear_reinforce:linear_reinforce"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        pip("wheel", ROOT, "--wheel-dir", base)
        pip("install", *base.glob("*.whl"), "--target", base / "site")
        for story in (pictures_to_film, task_to_leaderboard):
            (base / story.__name__).mkdir()
            story(base / story.__name__)
