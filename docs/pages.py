"""Write the page of each environment, docs/<id>.md, from the code.

python docs/pages.py          # writes the pages that are out of date
python docs/pages.py --check  # writes nothing; names the pages that are out of date and exits with 1 if there are any
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ram_envs import ENVIRONMENTS
from ram_envs.actions import ACTION_FORMATS
from ram_envs.catch import MOVES, Catch
from ram_envs.env import TASKS
from ram_envs.task import Task

FOLDER = Path(__file__).parent
_LOOKS = "of which you see {num_glimpses} small patches, one after the other, and choose where to look."
_FIND = "Find a handwritten digit at a random place on a canvas of {canvas_size}x{canvas_size} pixels"
_CLUTTER = "among {num_clutter} pieces of other digits"
_BALL = "Catch a falling ball with a paddle on a screen of {size}x{size} pixels that you see"
_MOVES = ", ".join(f"{number} {move}" for number, move in enumerate(MOVES))

# What each id is; its options are filled in.
SENTENCES = {
    "GlimpseMNIST-v0": f"Classify a handwritten digit {_LOOKS}",
    "GlimpseTranslatedMNIST-v0": f"{_FIND}, and classify it.",
    "GlimpseClutteredMNIST-v0": f"{_FIND} {_CLUTTER}, and classify it.",
    "GlimpseClutteredMNIST100-v0": f"{_FIND} {_CLUTTER}, and classify it.",
    "GlimpseFashionMNIST-v0": f"Classify a piece of clothing {_LOOKS}",
    "GlimpseClassification-v0": f"Classify images of your own, grey or in colour, of any size, {_LOOKS} Without the option "
    "`dataset` they are MNIST's.",
    "GlimpseCatch-v0": f"{_BALL} through a retina that you move yourself.",
    "Catch-v0": f"{_BALL} whole: what GlimpseCatch-v0 is to be compared with.",
}
# What the pictures show that is not the environment's default.
SHOWN = {"GlimpseClassification-v0": "Own images: pairs of MNIST digits in colour, 28x56 pixels, with `num_scales=2`. "}
OBSERVATIONS = {
    "glimpse": "the patches, the narrowest first",
    "location": "(x, y), where they were taken",
}
FORMATS = {
    "dict": "each by its name",
    "box": "the location, then a score for each possibility of each choice, of which the highest counts",
    "multidiscrete": "column and row in a grid of {location_grid}x{location_grid} locations, then the choices",
    "discrete": "the numbers of `multidiscrete` as one, as `numpy.ravel_multi_index` counts",
}
INFOS = {
    "label": "the image's class",
    "index": "which image of the split it is",
    "is_success": "whether {won}",
}
RESET_OPTIONS = {
    "index": "which image of the split to show",
    "ball_column": "where the ball falls from: 0 to `size` - 1",
    "ball_speed": "one of `ball_speeds`",
}


def page(env_id: str) -> str:
    """The page as Markdown."""
    env = stand_in(env_id)
    task: Task = env.unwrapped.task  # type: ignore[attr-defined]
    sections = [
        "<!-- Made by docs/pages.py. -->",
        f"# {env_id}",
        SENTENCES[env_id].format(**defaults(env_id)),
        *_pictures(env_id),
        _code(env_id),
        "## Observations",
        *_observations(env.observation_space),
        "## Actions",
        *_actions(env_id),
        "## Episode and reward",
        _rules(type(task)),
        _table("info | when | meaning", _infos(env)),
        "## Options",
        _table("option | default | meaning", _options(env_id)),
        "`gym.make` also takes `render_mode`, `gym.make_vec` also `num_envs` and `autoreset_mode`. Videos run at "
        f"{task.render_fps} pictures a second.",
        "## Options of reset",
        _table("`options` | meaning", ((f"`{name}`", RESET_OPTIONS[name]) for name in task.reset_options)),
        "A vector environment takes one value, or one for each environment.",
        "What all environments have in common: [environments.md](environments.md).",
    ]
    return "\n\n".join(sections) + "\n"


def stand_in(env_id: str, **options: Any) -> gym.Env:
    """The environment, on blank images of MNIST's size where it has images: no data are needed."""
    if "dataset" in defaults(env_id):
        options["dataset"] = (np.zeros((10, 28, 28), np.uint8), np.arange(10))
    return gym.make(env_id, **options)


def defaults(env_id: str) -> dict[str, Any]:
    """All options with their defaults: the task's and, in place of them, the id's own."""
    own = ENVIRONMENTS[env_id]
    parameters = inspect.signature(TASKS[own["task"]]).parameters.values()
    return {one.name: own.get(one.name, one.default) for one in parameters if one.name != "num_envs"}


def meanings(task: type[Task]) -> dict[str, str]:
    """What a task's docstring says about each argument."""
    section = _docs(task).split("Args:\n")[1].split("\n\n")[0]
    entries = re.split(r"^    (?=\w)", section, flags=re.MULTILINE)[1:]  # What goes on is indented further.
    return {name: " ".join(text.split()) for name, text in (entry.split(": ", 1) for entry in entries)}


def stale_pages() -> list[Path]:
    """The pages that are missing or not what `page` makes."""
    pages = ((_path(env_id), page(env_id)) for env_id in ENVIRONMENTS)
    return [path for path, text in pages if not path.is_file() or path.read_text("utf-8") != text]


def _path(env_id: str) -> Path:
    return FOLDER / f"{env_id}.md"


def _docs(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


def _pictures(env_id: str) -> list[str]:
    # Asked of the folder, not of the data: the page is the same on every machine.
    if not (FOLDER / "images" / f"{env_id}.png").is_file():
        return []
    return [
        f"![{env_id} late in an episode](images/{env_id}.png)",
        f"![{env_id}, some episodes](images/{env_id}.gif)",
        f"*{SHOWN.get(env_id, '')}No learned agent is at work: the actions come from a script that knows the whole scene "
        f"(`python -m ram_envs.gallery {env_id}`).*",
    ]


def _code(env_id: str) -> str:
    return f"""```python
import gymnasium as gym
import ram_envs

env = gym.make("{env_id}")
env = gym.make("ram_envs:{env_id}")  # needs no `import ram_envs`
envs = gym.make_vec("{env_id}", num_envs=256)  # one native batch
```"""


def _observations(space: spaces.Space) -> Iterator[str]:
    if isinstance(space, spaces.Dict):
        yield "A Dict:"
        rows = ((f"`{name}`", _text(part), OBSERVATIONS[name]) for name, part in space.items())
        yield _table("name | space | meaning", rows)
    else:
        yield f"{_text(space)}: the screen, 1 where ball and paddle are, else 0."


def _actions(env_id: str) -> Iterator[str]:
    options = defaults(env_id)
    if "action_format" not in options:
        yield f"{_text(stand_in(env_id).action_space)}: {_MOVES}."
        return
    formats = {name: stand_in(env_id, action_format=name).action_space for name in ACTION_FORMATS}
    rows = [(f'`"{name}"`', _text(space), FORMATS[name].format(**options)) for name, space in formats.items()]
    choice = f"`move` is {_MOVES}" if "ball_speeds" in options else "`class` is what you take the image for"
    yield f"`location` is where to look next; {choice}."
    yield _table("`action_format` | space | meaning", rows)
    yield _table("option | adds to the actions | adds to the observations", _additions(env_id))


def _additions(env_id: str) -> Iterator[tuple[str, ...]]:
    """What the options add to the spaces of the format "dict"."""
    plain = stand_in(env_id)
    for name in defaults(env_id):
        if name.endswith("_action"):
            env = stand_in(env_id, **{name: True})
            pairs = (env.action_space, plain.action_space), (env.observation_space, plain.observation_space)
            yield f"`{name}=True`", *(_new(with_it, without) for with_it, without in pairs)


def _new(space: Any, plain: Any) -> str:
    return ", ".join(f"`{name}` {_text(part)}" for name, part in space.items() if name not in plain.spaces) or "nothing"


def _text(space: spaces.Space) -> str:
    if isinstance(space, spaces.Dict):
        return "Dict: " + ", ".join(f"`{name}` {_text(part)}" for name, part in space.items())
    if isinstance(space, spaces.Box):
        return f"Box({space.low.min():g}, {space.high.max():g}, {space.shape}, {space.dtype})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({space.nvec.tolist()})"
    return str(space)


def _rules(task: type[Task]) -> str:
    """The paragraph about the episode out of the task's docstring, or out of its module's."""
    texts = (_docs(task), _docs(inspect.getmodule(task)))
    paragraphs = [paragraph for text in texts for paragraph in text.split("Args:")[0].split("\n\n")[1:] if paragraph.strip()]
    return " ".join(paragraphs[0].split())


def _infos(env: gym.Env) -> Iterator[tuple[str, str, str]]:
    won = "the ball was caught" if isinstance(env.unwrapped.task, Catch) else "the class was right"  # type: ignore[attr-defined]
    env.action_space.seed(0)
    _, first = env.reset(seed=0)
    terminated = False
    while not terminated:
        *_, terminated, _, last = env.step(env.action_space.sample())
    for name in last:
        yield f"`{name}`", "always" if name in first else "at the last step", INFOS[name].format(won=won)


def _options(env_id: str) -> Iterator[tuple[str, str, str]]:
    said = meanings(TASKS[ENVIRONMENTS[env_id]["task"]])
    for name, default in defaults(env_id).items():
        yield f"`{name}`", f"`{default!r}`".replace("'", '"'), said[name]


def _table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, " | ".join("---" for _ in head.split(" | ")), *(" | ".join(_cell(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if a page is out of date")
    options = parser.parse_args(arguments)
    stale = stale_pages()
    for path in stale:
        if not options.check:
            path.write_text(page(path.stem), "utf-8")
        print(f"{path.name} {'is out of date: run python docs/pages.py' if options.check else 'written'}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
