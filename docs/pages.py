"""Fill the tables of docs/classification.md and docs/catch.md, between their markers, from the code; and what docs/pretrained.md
tells of each agent from its card.

python docs/pages.py          # writes the pages that are out of date
python docs/pages.py --check  # writes nothing; names the pages that are out of date and exits with 1 if there are any
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ram_envs import ENVIRONMENTS, Catch, GlimpseCatch, GlimpseClassification, Task, env_defaults
from ram_envs.actions import ACTION_FORMATS

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER.parent / "agents" / "weights"
# What each page tells of: ids, and the task behind each of them; nothing where it tells of the pretrained agents.
PAGES: dict[str, dict[str, type[Task]]] = {
    "classification.md": {
        name: GlimpseClassification
        for name, own in ENVIRONMENTS.items()
        if own["task"] == "classification" and "flatten_observation" not in own
    },
    "catch.md": {"GlimpseCatch-v0": GlimpseCatch, "Catch-v0": Catch},
    "pretrained.md": {},
}


def fill(page: str, tasks: dict[str, type[Task]], images: Path) -> str:
    """The page's text with all generated parts made anew.

    Args:
        page: Markdown with the markers `<!-- name: begin -->` and `<!-- name: end -->` for each of the parts.
        tasks: the ids that the page tells of, and their tasks.
        images: the folder of the pictures.

    Raises:
        ValueError: a marker is missing.
    """
    if tasks:
        parts = {"ids": ids(tasks), "spaces": formats(tasks), "options": options(tasks), "pictures": pictures(tasks, images)}
    else:
        parts = {"agents": agents(WEIGHTS, images)}
    for name, part in parts.items():
        between = re.compile(rf"(?<=<!-- {name}: begin -->\n).*?(?=<!-- {name}: end -->)", re.DOTALL)
        if not between.search(page):
            raise ValueError(f"the page must hold the lines <!-- {name}: begin --> and <!-- {name}: end -->")
        page = between.sub(f"\n{part}\n\n".replace("\\", r"\\"), page)
    return page


def ids(tasks: dict[str, type[Task]]) -> str:
    """The ids, with the options in which they differ, or with what the agent sees where they are different tasks."""
    defaults = {env_id: env_defaults(env_id) for env_id in tasks}
    names = dict.fromkeys(name for own in defaults.values() for name in own)
    differ = [name for name in names if len({repr(own.get(name)) for own in defaults.values()}) > 1]
    if len(set(tasks.values())) > 1:  # The table of options says in what tasks differ.
        return table(["id", "what the agent sees"], [[env_id, text(stand_in(env_id).observation_space)] for env_id in tasks])
    return table(
        ["id", *(f"`{name}`" for name in differ), "`glimpse` of the observation"],
        [
            [env_id, *(show(own[name]) for name in differ), text(stand_in(env_id).observation_space["glimpse"])]  # type: ignore[index]
            for env_id, own in defaults.items()
        ],
    )


def formats(tasks: dict[str, type[Task]]) -> str:
    """The action spaces of the first id in each format, and what options add to them."""
    env_id = next(iter(tasks))
    rows = [(f'`"{name}"`', text(stand_in(env_id, action_format=name).action_space)) for name in ACTION_FORMATS]
    plain, additions = stand_in(env_id), []
    for name in env_defaults(env_id):
        if name.endswith("_action"):
            env = stand_in(env_id, **{name: True})
            pairs = (env.action_space, plain.action_space), (env.observation_space, plain.observation_space)
            additions.append((f"`{name}=True`", *(new_parts(with_it, without) for with_it, without in pairs)))
    added = table(["option", "adds to the actions", "adds to the observations"], additions)
    return f"{table(['`action_format`', f'actions of {env_id}'], rows)}\n\n{added}"


def options(tasks: dict[str, type[Task]]) -> str:
    """Each option with its default in each of the page's tasks, and what the task's docstring says of it."""
    classes = {task: env_id for env_id, task in reversed(tasks.items())}  # Each task once, with its first id.
    defaults = {task: {one.name: one.default for one in inspect.signature(task).parameters.values()} for task in classes}
    said = {name: meaning for task in classes for name, meaning in meanings(task).items()}
    columns = sorted(classes, key=list(tasks.values()).index)
    heads = ["default"] if len(columns) == 1 else [f"default in {classes[task]}" for task in columns]
    rows = [
        [f"`{name}`", *(show(defaults[task][name]) if name in defaults[task] else "–" for task in columns), meaning]
        for name, meaning in said.items()
        if name != "num_envs"
    ]
    return table(["option", *heads, "meaning"], rows)


def pictures(tasks: dict[str, type[Task]], images: Path) -> str:
    """A still and a moving picture of each id that has them."""
    shown = [env_id for env_id in tasks if (images / f"{env_id}.png").is_file()]
    return "\n\n".join(
        f"**{env_id}**\n\n![{env_id} late in an episode](images/{env_id}.png)\n\n![{env_id}, some episodes](images/{env_id}.gif)"
        for env_id in shown
    )


def agents(weights: Path, images: Path) -> str:
    """Each pretrained agent: the facts of its card, how to use it, and its picture."""
    rows, sections = [], []
    for card in sorted(weights.glob("*.md")):
        env_id, facts = card.stem, dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", card.read_text("utf-8"), re.MULTILINE))
        size = f"{facts['parameters'].split(':')[0]} parameters, {facts['file'].split(', ')[1]}"
        link = f"[card](../agents/weights/{card.name})"
        rows.append([f"[{env_id}](#{env_id.lower()})", facts["test error"], size, link, f'`load_pretrained("{env_id}")`'])
        [picture] = images.glob(f"pretrained_{env_id}.*")
        shown = f"![The agent of {env_id} at work](images/{picture.name})"
        sections.append(f"### {env_id}\n\n`ram-envs watch -i pretrained --env {env_id}`\n\n{shown}")
    return "\n\n".join([table(["agent", "test error", "size", "card", "in Python"], rows), *sections])


def stand_in(env_id: str, **options: Any) -> gym.Env:
    """The environment, on blank images of MNIST's size where it has images: no data are needed."""
    if "dataset" in env_defaults(env_id):
        options["dataset"] = (np.zeros((10, 28, 28), np.uint8), np.arange(10))
    return gym.make(env_id, **options)


def meanings(task: type[Task]) -> dict[str, str]:
    """What a task's docstring says about each argument."""
    section = (inspect.getdoc(task) or "").split("Args:\n")[1].split("\n\n")[0]
    entries = re.split(r"^    (?=\w)", section, flags=re.MULTILINE)[1:]  # Lines that continue an entry are indented further.
    return {name: " ".join(text.split()) for name, text in (entry.split(": ", 1) for entry in entries)}


def new_parts(space: Any, plain: Any) -> str:
    """What one Dict space has more than another."""
    return ", ".join(f"`{name}` {text(part)}" for name, part in space.items() if name not in plain.spaces) or "nothing"


def text(space: spaces.Space) -> str:
    """A space in short."""
    if isinstance(space, spaces.Dict):
        return "Dict: " + ", ".join(f"`{name}` {text(part)}" for name, part in space.items())
    if isinstance(space, spaces.Box):
        return f"Box({space.low.min():g}, {space.high.max():g}, {space.shape}, {space.dtype})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({space.nvec.tolist()})"
    return str(space)


def show(default: Any) -> str:
    """A value as it stands in code."""
    return f"`{default!r}`".replace("'", '"')


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if a page is out of date")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the folder of the pages (default: docs)")
    given = parser.parse_args(arguments)
    stale = False
    for name, tasks in PAGES.items():
        path = given.folder / name
        old = path.read_text("utf-8")
        new = fill(old, tasks, FOLDER / "images")
        if new != old:
            stale = True
            if not given.check:
                path.write_text(new, "utf-8")
            print(f"{name} {'is out of date: run python docs/pages.py' if given.check else 'written'}")
    return int(given.check and stale)


if __name__ == "__main__":
    sys.exit(main())
