"""Random token dropping: of every view a few tokens are seen, and nothing is predicted."""

from __future__ import annotations

import math

import numpy as np

from salt_plugin.errors import ConfigError
from salt_plugin.masks.generator import MaskGenerator
from salt_plugin.shapes import Grid, Tokens, local_side


class TokenDropping(MaskGenerator):
    """Drops tokens uniformly at random, independently for each view of each clip.

    The first mask set is of the clip itself, the others are of its local views. All clips keep
    equally many tokens, so that nothing is cut to the shortest.

    Args:
        drop: Share of the tokens that are dropped; of each view at least one token is kept.
        local_views: Number of local views of a clip.
        local_size: Height and width of a local view in pixels; null: three sevenths of the
            clip's, in whole patches.
        patch_size: Side of a patch in pixels.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        drop: float = 0.95,
        local_views: int = 0,
        local_size: int | None = None,
        patch_size: int = 16,
    ) -> None:
        if not 0 <= drop < 1:
            raise ConfigError(f"method.masks.drop={drop}: expected a share from 0 to below 1")
        if local_views < 0:
            raise ConfigError(f"method.masks.local_views={local_views}: expected 0 or more")
        if local_size is not None and (local_size < patch_size or local_size % patch_size):
            raise ConfigError(
                f"method.masks.local_size={local_size}: expected a multiple of the patch size, "
                f"{patch_size}"
            )
        self.drop = drop
        self.local_views = local_views
        self.num_sets = 1 + local_views
        self.local_patches = None if local_size is None else local_size // patch_size

    def grid(self, number: int, clip_grid: Grid) -> Grid:
        """Returns the token grid of the clip, or of a local view."""
        frames, height, width = clip_grid
        if number == 0:
            return clip_grid
        rows, cols = (self.local_patches or local_side(side) for side in (height, width))
        return frames, rows, cols

    def counts(self, number: int, grid: Grid) -> Tokens:
        """Returns how many tokens are kept; none is a target."""
        return Tokens(max(1, round((1 - self.drop) * math.prod(grid))), 0)

    def hidden(
        self,
        number: int,
        clips: int,
        grid: Grid,
        of_step: np.random.Generator,
        of_group: np.random.Generator,
    ) -> np.ndarray:
        """Draws the dropped tokens of a view: bool [B, N]."""
        tokens, kept = math.prod(grid), self.counts(number, grid).context
        kept_bk = of_group.random((clips, tokens)).argsort(axis=1)[:, :kept]
        hidden = np.ones((clips, tokens), dtype=bool)
        np.put_along_axis(hidden, kept_bk, False, axis=1)
        return hidden
