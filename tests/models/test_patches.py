from __future__ import annotations

import pytest
import torch

from salt_plugin.models.encoder import gather_tokens, patchify, unpatchify


@pytest.mark.parametrize(("tubelet", "patch"), [(2, 4), (1, 8), (4, 2)])
def test_unpatchify_undoes_patchify(tubelet: int, patch: int) -> None:
    clip = torch.randn(2, 3, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    patches = patchify(clip, tubelet, patch)
    grid = (4 // tubelet, 8 // patch, 16 // patch)
    assert patches.shape == (2, grid[0] * grid[1] * grid[2], 3 * tubelet * patch**2)
    assert torch.equal(unpatchify(patches, grid, tubelet, patch), clip)


def test_every_pixel_is_where_the_docstring_says() -> None:
    clip = torch.arange(2 * 3 * 4 * 6 * 8.0).view(2, 3, 4, 6, 8)
    patches = patchify(clip, 2, 2)
    t_tokens, h_tokens, w_tokens = 2, 3, 4
    for b in range(2):
        n = 0
        for t in range(t_tokens):
            for h in range(h_tokens):
                for w in range(w_tokens):
                    tubelet = [
                        clip[b, c, 2 * t + dt, 2 * h + dh, 2 * w + dw].item()
                        for c in range(3)
                        for dt in range(2)
                        for dh in range(2)
                        for dw in range(2)
                    ]
                    assert patches[b, n].tolist() == tubelet
                    n += 1
        assert n == patches.shape[1]


def test_gather_picks_per_clip() -> None:
    tokens = torch.arange(2 * 5 * 3.0).view(2, 5, 3)
    indices = torch.tensor([[4, 0], [1, 1]])
    picked = gather_tokens(tokens, indices)
    for b in range(2):
        for k in range(2):
            assert torch.equal(picked[b, k], tokens[b, indices[b, k]])
