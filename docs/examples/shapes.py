"""Write a small set of images for docs/own-images.md: circles, crosses and squares at random places, of random size and colours.

python docs/examples/shapes.py shapes  # shapes/circle/0000.png and so on, 600 files of 50x70 pixels
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("circle", "cross", "square")


def draw(name: str, rng: np.random.Generator, height: int = 50, width: int = 70) -> np.ndarray:
    """An RGB image (height, width, 3) of one shape in a random colour on a dark ground, with noise."""
    radius = rng.uniform(6, 14)
    y, x = np.mgrid[:height, :width]
    dx, dy = abs(x - rng.uniform(radius, width - radius)), abs(y - rng.uniform(radius, height - radius))
    inside = {
        "circle": dx**2 + dy**2 <= radius**2,
        "cross": (np.maximum(dx, dy) <= radius) & (np.minimum(dx, dy) <= radius / 3),
        "square": np.maximum(dx, dy) <= 0.9 * radius,
    }[name]
    colour = rng.uniform(0, 255, 3)
    colour[rng.integers(3)] = 255  # No shape is as dark as the ground.
    image = np.where(inside[:, :, None], colour, 20) + rng.normal(0, 8, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8)


def write(folder: Path, num_images: int = 600, seed: int = 0) -> None:
    """Write as many images, as many of each class."""
    rng = np.random.default_rng(seed)
    for index in range(num_images):
        path = folder / CLASSES[index % 3] / f"{index // 3:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(CLASSES[index % 3], rng)).save(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
