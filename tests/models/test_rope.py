from __future__ import annotations

import pytest
import torch
from plain_vit import place_of, rotate_token

from salt_plugin.models.rope import apply_rope, rope_tables

GRID = (3, 4, 5)


# 16 splits into runs of 4 and a rest of 4, 32 into 10 and 2, 64 (ViT-L) into 20 and 4.
@pytest.mark.parametrize("head_dim", [6, 16, 24, 32, 64])
def test_matches_a_loop_over_tokens_and_channels(head_dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(60, generator=generator)[:9], torch.arange(51, 60)])
    x = torch.randn(2, 3, 9, head_dim, generator=generator, dtype=torch.float64)
    rotated = apply_rope(x, *rope_tables(indices, GRID, head_dim, x.dtype))

    expected = torch.empty_like(x)
    for b in range(2):
        for head in range(3):
            for n in range(9):
                place = place_of(int(indices[b, n]), GRID)
                expected[b, head, n] = torch.tensor(rotate_token(x[b, head, n].tolist(), place))
    torch.testing.assert_close(rotated, expected, rtol=0, atol=2e-6)


def test_first_token_and_leftover_channels_stay_as_they_are() -> None:
    x = torch.randn(1, 2, 60, 16, generator=torch.Generator().manual_seed(0))
    rotated = apply_rope(x, *rope_tables(torch.arange(60)[None], GRID, 16, x.dtype))
    assert torch.equal(rotated[:, :, 0], x[:, :, 0])
    assert torch.equal(rotated[..., 12:], x[..., 12:])
    assert not torch.equal(rotated[..., :12], x[..., :12])


def test_each_axis_turns_its_own_channels() -> None:
    x = torch.ones(1, 1, 60, 16)
    rotated = apply_rope(x, *rope_tables(torch.arange(60)[None], GRID, 16, x.dtype))
    by_place = rotated.view(3, 4, 5, 16)
    time, height, width = by_place[..., :4], by_place[..., 4:8], by_place[..., 8:12]
    assert torch.equal(time, time[:, :1, :1].expand_as(time))
    assert torch.equal(height, height[:1, :, :1].expand_as(height))
    assert torch.equal(width, width[:1, :1].expand_as(width))
    for axis, channels in enumerate((time, height, width)):
        assert not torch.equal(channels.select(axis, 0), channels.select(axis, 1))


def test_table_type_is_the_one_asked_for() -> None:
    cos, sin = rope_tables(torch.arange(60)[None], GRID, 16, torch.bfloat16)
    assert cos.dtype == sin.dtype == torch.bfloat16
    assert cos.shape == sin.shape == (1, 1, 60, 16)
