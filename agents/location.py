"""Where to look next, beside the paper's linear network: attention over what is in sight."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .glimpse_networks import Shape, as_patches

FILTER_SIZE = 7  # Of cells; the filters move by two.
QUERY_START = 0.1  # Standard deviation of a filter's first weight in the scores.
CENTRE_START = -1.0  # First weight of x^2 and y^2 in the scores: where nothing is in sight, look at the scene's middle.


class Saliency(nn.Module):
    """Where in sight something is worth a closer look: attention over the retina's cells of all scales.

    Each cell has a score: a weighted sum of what filters see there, of its place (x, y) in the scene, and of x^2 and y^2. The
    weights are an offset plus Linear(h_t). The look goes to the mean of the cells' places, weighted by a softmax of the scores.
    What is learned about one place of the glimpse holds for all others: so few weights need far fewer rewards to learn from.

    Args:
        glimpse_shape: (k, g, g), or (k, C, g, g), each scale twice as wide as the one before.
        core_size: units of h_t.
        scene_size: the side of the scene in pixels, or its height and width: it says how far from the gaze a cell lies.
        num_filters: filters, the same for all scales.

    Raises:
        ValueError: `scene_size` is not one or two numbers above 0.
    """

    def __init__(self, glimpse_shape: Shape, core_size: int, scene_size: float | list[float], num_filters: int = 16) -> None:
        super().__init__()
        if np.shape(scene_size) not in ((), (2,)) or not np.min(scene_size) > 0:
            raise ValueError(f"scene_size must be a side above 0, or height and width, got {scene_size!r}")
        num_scales = glimpse_shape[0]
        self.channels = math.prod(glimpse_shape[1:-2])
        self.filters = nn.Conv2d(self.channels, num_filters, FILTER_SIZE, stride=2, padding=FILTER_SIZE // 2)
        self.query = nn.Linear(core_size, num_filters + 4)
        self.prior = nn.Parameter(torch.zeros(num_scales))  # A score for each scale.
        offsets = _cell_offsets(num_scales, glimpse_shape[-1], scene_size)
        self.offsets = nn.Buffer(offsets, persistent=False)  # (k m m, 2)
        self.powers = nn.Buffer(torch.cat([offsets, offsets.square()], dim=-1).T, persistent=False)  # (4, k m m): first, second
        nn.init.kaiming_normal_(self.filters.weight)
        nn.init.zeros_(self.filters.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        nn.init.normal_(self.query.bias[:num_filters], 0.0, QUERY_START)
        nn.init.constant_(self.query.bias[-2:], CENTRE_START)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, hidden: Tensor, glimpse: Tensor, location: Tensor, scale: float) -> Tensor:
        """Where to look (..., 2): h_t (..., H), a glimpse (..., k, [C,] g, g) taken at a location (..., 2).

        The weights move by `scale` times Linear(h_t).
        """
        return location + self.scores(hidden, glimpse, location, scale).softmax(-1) @ self.offsets

    def scores(self, hidden: Tensor, glimpse: Tensor, location: Tensor, scale: float) -> Tensor:
        """The score of each cell (..., k m m), the narrowest patch first, row by row; m is half of g, rounded up."""
        seen = self.filters(as_patches(glimpse, self.channels)).relu()  # (N k, F, m, m)
        seen = seen.permute(0, 2, 3, 1).reshape(*hidden.shape[:-1], -1, seen.shape[1])  # (..., k m m, F)
        query = scale * F.linear(hidden, self.query.weight) + self.query.bias  # (..., F + 4)
        filters, linear, square = query.split([seen.shape[-1], 2, 2], dim=-1)
        scores = (seen * filters.unsqueeze(-2)).sum(-1)  # Twice as fast as a batch of such small products.
        # a (l + d) + b (l + d)^2 of the place l + d is (a + 2 b l) d + b d^2, but for what all cells of a glimpse share.
        slopes = torch.cat([linear + 2 * square * location, square], dim=-1)  # (..., 4)
        scores = scores + slopes @ self.powers  # (..., k m m)
        return scores + self.prior.repeat_interleave(scores.shape[-1] // len(self.prior))


def _cell_offsets(num_scales: int, side: int, scene_size: float | list[float]) -> Tensor:
    """How far from the gaze, along x and y, the middles of the filters lie, in units of [-1, 1]: (k m m, 2)."""
    height, width = np.broadcast_to(scene_size, 2)
    cells = torch.arange(0, side, 2) + 0.5 - side / 2  # (m,), in cells
    y, x = torch.meshgrid(cells, cells, indexing="ij")
    middles = torch.stack([x * (2 / width), y * (2 / height)], dim=-1).flatten(0, 1)  # (m m, 2), of scale 0
    return (2.0 ** torch.arange(num_scales)[:, None, None] * middles).flatten(0, 1).float()
