"""Write the pictures of episodes as a .gif or .mp4."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
from numpy.typing import NDArray

FORMATS = (".gif", ".mp4")


def write_video(path: str | Path, episodes: Iterable[Iterable[Any]], fps: float, hold: float = 1.0) -> int:
    """Write pictures (H, W, 3) of uint8 as a looping .gif or as an .mp4; the folder is made where it is missing.

    Args:
        path: of the file; its ending says which.
        episodes: the pictures of each episode.
        fps: pictures a second.
        hold: the seconds for which the last picture of an episode is shown; an .mp4 repeats it, a .gif does not.

    Returns:
        the number of pictures written.

    Raises:
        ValueError: the path has another ending; no episode has been asked for then.
        gymnasium.error.DependencyNotInstalled: imageio is missing.
    """
    path, imageio = Path(path), import_imageio()
    if path.suffix not in FORMATS:
        raise ValueError(f"the path of a video must end in one of {FORMATS}, got {path}")
    pictures: list[NDArray] = []
    seconds: list[float] = []
    for episode in episodes:
        pictures += episode
        seconds += [1 / fps] * (len(pictures) - len(seconds))
        seconds[-1] = max(hold, 1 / fps)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        imageio.imwrite(path, pictures, duration=[1000 * each for each in seconds], loop=0)
    else:
        pictures = [picture for picture, each in zip(pictures, seconds, strict=True) for _ in range(round(fps * each))]
        imageio.imwrite(path, pictures, fps=fps, plugin="FFMPEG")
    return len(pictures)


def import_imageio() -> Any:
    """Import imageio when there is something to write.

    Raises:
        gymnasium.error.DependencyNotInstalled: it is missing.
    """
    try:
        import imageio.v3 as imageio
    except ImportError as error:
        raise gym.error.DependencyNotInstalled('imageio is not installed, run `pip install "ram-envs[train]"`') from error
    return imageio
