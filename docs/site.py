"""What mkdocs.yml needs beside the pages: the README as the home page, and the repository's address out of setup.cfg."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the repository's address from the one place where it stands."""
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg", encoding="utf-8")
    config.repo_url, config.repo_name = metadata["metadata"]["url"], metadata["metadata"]["name"]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page."""
    home = (ROOT / "README.md").read_text("utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=re.sub(r"\]\((?=\w+\.cff|LICENSE)", "](../", home)))
    return files


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Links to files beside the docs lead to the repository."""
    return re.sub(r"\]\(\.\./(?=[^)\s]+\))", f"]({config.repo_url}/blob/main/", markdown)
