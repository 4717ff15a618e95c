from __future__ import annotations

import copy

import pytest
import torch
from plain_vit import place_of, rotate_token
from torch import Tensor

from salt_plugin.models.attention import (
    RopeAttention,
    apply_rope,
    halves_first,
    pairs_together,
    rope_tables,
)

GRID = (3, 4, 5)
EVERYWHERE = torch.arange(60)[None]


def _rotate(x_thd: Tensor, indices_bk: Tensor) -> Tensor:
    """Rotates heads in V-JEPA's order of channels and returns them in that order."""
    d = x_thd.shape[-1]
    rope = rope_tables(indices_bk, GRID, d, x_thd.dtype)
    halves = apply_rope(x_thd.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2), rope)
    return halves.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


# 16 splits into runs of 4 and a rest of 4, 32 into 10 and 2, 64 (ViT-L) into 20 and 4.
@pytest.mark.parametrize("head_dim", [6, 16, 24, 32, 64])
def test_matches_a_loop_over_tokens_and_channels(head_dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(60, generator=generator)[:9], torch.arange(51, 60)])
    x = torch.randn(18, 3, head_dim, generator=generator, dtype=torch.float64)

    expected = torch.empty_like(x)
    for t, index in enumerate(indices.flatten().tolist()):
        for head in range(3):
            place = place_of(index, GRID)
            expected[t, head] = torch.tensor(rotate_token(x[t, head].tolist(), place))
    torch.testing.assert_close(_rotate(x, indices), expected, rtol=0, atol=2e-6)


def test_halves_of_a_projection_are_the_even_and_the_odd_channels_of_each_head() -> None:
    rows = torch.arange(12)
    assert halves_first(rows, 2).tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    weight = torch.randn(12, 7)
    assert torch.equal(halves_first(weight, 2), weight[halves_first(rows, 2)])
    assert torch.equal(pairs_together(halves_first(weight, 2), 2), weight)


@pytest.mark.parametrize("assign", [True, False])
def test_files_have_the_order_of_v_jepa_and_memory_that_of_halves(assign: bool) -> None:
    given = {"qkv.weight": torch.randn(36, 12), "qkv.bias": torch.arange(36.0)}
    given |= {"proj.weight": torch.randn(12, 12), "proj.bias": torch.randn(12)}
    attention = RopeAttention(12, num_heads=2)
    attention.load_state_dict(given, assign=assign)
    for state in (attention.state_dict(), copy.deepcopy(attention).state_dict()):
        assert state.keys() == given.keys()
        assert all(torch.equal(state[name], given[name]) for name in given)
    kept = attention.qkv.bias.tolist()
    assert kept[:6] == [0, 2, 4, 1, 3, 5]  # the queries of the first head
    assert kept[24:] == list(range(24, 36))  # values


def test_tables_that_are_kept_serve_evaluation_and_training() -> None:
    grid = (2, 3, 7)
    with torch.inference_mode():
        rope_tables(torch.arange(42)[None], grid, 16, torch.float32)
    queries = torch.randn(2, 1, 16, requires_grad=True)
    chosen = torch.tensor([[41, 5]])
    apply_rope(queries, rope_tables(chosen, grid, 16, torch.float32)).sum().backward()
    every = rope_tables(torch.arange(42)[None], grid, 16, torch.float32)
    assert torch.equal(every.cos[chosen[0]], rope_tables(chosen, grid, 16, torch.float32).cos)


def test_first_token_and_leftover_channels_stay_as_they_are() -> None:
    x = torch.randn(60, 2, 16, generator=torch.Generator().manual_seed(0))
    rotated = _rotate(x, EVERYWHERE)
    assert torch.equal(rotated[0], x[0])
    assert torch.equal(rotated[..., 12:], x[..., 12:])
    assert not torch.equal(rotated[..., :12], x[..., :12])


def test_each_axis_turns_its_own_channels() -> None:
    by_place = _rotate(torch.ones(60, 1, 16), EVERYWHERE).view(3, 4, 5, 16)
    time, height, width = by_place[..., :4], by_place[..., 4:8], by_place[..., 8:12]
    assert torch.equal(time, time[:, :1, :1].expand_as(time))
    assert torch.equal(height, height[:1, :, :1].expand_as(height))
    assert torch.equal(width, width[:1, :1].expand_as(width))
    for axis, channels in enumerate((time, height, width)):
        assert not torch.equal(channels.select(axis, 0), channels.select(axis, 1))


def test_table_type_is_the_one_asked_for() -> None:
    rope = rope_tables(EVERYWHERE, GRID, 16, torch.bfloat16)
    assert rope.cos.dtype == rope.sin.dtype == torch.bfloat16
    assert rope.cos.shape == rope.sin.shape == (60, 1, 16)
