from __future__ import annotations

import pytest
import torch
from plain_vit import block, layer_norm, linear, place_of

from salt_plugin.models import Predictor, PredictorShape

GRID = (2, 3, 4)
CONTEXT = torch.tensor([[0, 5, 9, 13], [22, 2, 7, 1]])
TARGET = torch.tensor([[1, 2, 23], [3, 21, 14]])


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    predictor = Predictor(20, 12, PredictorShape(dim=32, depth=2, num_heads=2)).double()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return predictor


@pytest.fixture
def context() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, 20, generator=generator, dtype=torch.float64)


def test_matches_plain_blocks(predictor: Predictor, context: torch.Tensor) -> None:
    state = dict(predictor.state_dict())
    for mask_index in range(2):
        predicted = predictor(context, CONTEXT, TARGET, GRID, mask_index).detach()
        for b in range(2):
            places = [place_of(i, GRID) for i in [*CONTEXT[b].tolist(), *TARGET[b].tolist()]]
            mask_tokens = [state[f"mask_tokens.{mask_index}"].view(1, -1)] * 3
            x = torch.cat([linear(context[b], state, "predictor_embed"), *mask_tokens])
            for depth in range(2):
                x = block(x, places, state, f"predictor_blocks.{depth}", heads=2)
            expected = linear(layer_norm(x[4:], state, "predictor_norm"), state, "predictor_proj")
            torch.testing.assert_close(predicted[b], expected, rtol=1e-5, atol=1e-5)


def test_targets_in_another_order_give_the_same_in_that_order(
    predictor: Predictor, context: torch.Tensor
) -> None:
    order = torch.tensor([2, 0, 1])
    straight = predictor(context, CONTEXT, TARGET, GRID)
    torch.testing.assert_close(
        predictor(context, CONTEXT, TARGET[:, order], GRID), straight[:, order]
    )


def test_order_of_the_context_changes_nothing(predictor: Predictor, context: torch.Tensor) -> None:
    order = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(
        predictor(context[:, order], CONTEXT[:, order], TARGET, GRID),
        predictor(context, CONTEXT, TARGET, GRID),
    )


def test_places_matter(predictor: Predictor, context: torch.Tensor) -> None:
    straight = predictor(context, CONTEXT, TARGET, GRID)
    assert (predictor(context, CONTEXT, (TARGET + 1) % 24, GRID) - straight).abs().max() > 1e-3
    assert (predictor(context, (CONTEXT + 1) % 24, TARGET, GRID) - straight).abs().max() > 1e-3


def test_each_set_has_its_own_mask_token(predictor: Predictor, context: torch.Tensor) -> None:
    outputs = [predictor(context, CONTEXT, TARGET, GRID, i) for i in range(3)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    assert torch.equal(outputs[0], outputs[2])  # a third set begins again with the first token
    outputs[1].sum().backward()
    assert predictor.mask_tokens[0].grad is None
    assert predictor.mask_tokens[1].grad.abs().max() > 0


def test_projects_to_the_width_asked_for() -> None:
    predictor = Predictor(20, 1536, PredictorShape(dim=24, depth=1, num_heads=2))
    assert predictor(torch.zeros(2, 4, 20), CONTEXT, TARGET, GRID).shape == (2, 3, 1536)
