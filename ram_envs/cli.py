"""The command `ram-envs`: everything that can be done from a shell.

ram-envs play GlimpseCatch-v0                        # play an environment yourself, seeing only what the retina sees
ram-envs gallery --out pictures                      # the environments' pictures
ram-envs train --env GlimpseMNIST-v0 --progress      # what `python train_agent.py` does in a checkout
ram-envs evaluate -i pretrained --env GlimpseMNIST-v0
ram-envs record catch.gif -i logs/ram/GlimpseCatch-v0_1
ram-envs watch -i pretrained --env GlimpseCatch-v0   # a trained agent in a window
ram-envs looks -i pretrained --env GlimpseCatch-v0   # why it looks where it looks
ram-envs compare --envs GlimpseCatch-v0 --algos ram ppo --minutes 5   # a leaderboard

`ram-envs COMMAND --help` tells the options. All but play and gallery need the extra `train`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ram_envs import __version__

# Each command's function, and the arguments that come before the user's. Imported when asked for: some need torch.
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "play": ("ram_envs.play:main", []),
    "gallery": ("ram_envs.gallery:main", []),
    "train": ("train_agent:command", []),
    "evaluate": ("train_agent:command", ["--eval-only"]),
    "record": ("train_agent:command", ["--record"]),
    "looks": ("train_agent:command", ["--looks"]),
    "watch": ("train_agent:command", ["--watch"]),
    "compare": ("ram_envs.benchmarks.compare:command", []),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of `COMMANDS`; arguments are those of the command line, by default this process's."""
    parser = argparse.ArgumentParser(prog="ram-envs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"ram-envs {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="the command's own")
    options = parser.parse_args(arguments)
    target, before = COMMANDS[options.command]
    module, function = target.split(":")
    try:
        run = getattr(importlib.import_module(module), function)
    except ImportError as error:
        extra = "render" if options.command in ("play", "gallery") else "train"
        sys.exit(f"ram-envs {options.command} can't be run ({error}): pip install 'ram-envs[{extra}]'")
    run([*before, *options.arguments], prog=f"ram-envs {options.command}")


if __name__ == "__main__":
    main()
