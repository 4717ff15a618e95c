from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.errors import ConfigError
from salt_plugin.evaluation import grid
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.evaluation.grid import (
    GridResult,
    GridSettings,
    halving_plan,
    predict,
    train_grid,
)

VIDEOS, TOKENS, DIM, CLASSES = 30, 4, 16, 3
SMALL = GridSettings(
    learning_rates=(3e-3, 1e-3),
    weight_decays=(0.4, 0.01),
    epochs=3,
    batch_size=8,
    num_heads=2,
    depth=2,
    precision="32",
)


def _data(views: int = 1, seed: int = 0, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Videos whose tokens hold a direction of their class, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(VIDEOS) % CLASSES
    features = noise * torch.randn(VIDEOS, views, TOKENS, DIM, generator=generator)
    features += 2 * torch.eye(DIM)[labels][:, None, None]
    return features, labels


def _train(settings: GridSettings = SMALL, views: int = 1, **options: Any) -> GridResult:
    return train_grid(*_data(), *_data(views, seed=1), CLASSES, settings, **options)


class _Spy(ProbeBank):
    """Keeps the probes as they start, and the batches."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if not hasattr(_Spy, "initial"):
            _Spy.initial, _Spy.trained = copy.deepcopy(self.probes), self.probes
            _Spy.batches: list[tuple[Tensor, Tensor]] = []

    def backward(self, tokens_bnd: Tensor, labels_b: Tensor) -> Tensor:
        _Spy.batches.append((tokens_bnd, labels_b))
        return super().backward(tokens_bnd, labels_b)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> type[_Spy]:
    for name in ("initial", "trained", "batches"):
        if hasattr(_Spy, name):
            delattr(_Spy, name)
    monkeypatch.setattr(grid, "ProbeBank", _Spy)
    return _Spy


def test_training_is_that_of_each_probe_alone_with_adamw(
    spy: type[_Spy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(grid.DTYPES, "32", torch.float64)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        points = _train().points
        total = len(spy.batches)
        assert total == SMALL.epochs * math.ceil(VIDEOS / SMALL.batch_size)
        for point, alone, banked in zip(points, spy.initial, spy.trained, strict=True):
            optimizer = torch.optim.AdamW(alone.parameters(), weight_decay=point.weight_decay)
            for step, (tokens, labels) in enumerate(spy.batches, start=1):
                factor = 0.5 * (1 + math.cos(math.pi * step / total))
                optimizer.param_groups[0]["lr"] = point.learning_rate * factor
                optimizer.zero_grad()
                F.cross_entropy(alone(tokens), labels).backward()
                optimizer.step()
            for found, wanted in zip(banked.parameters(), alone.parameters(), strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    finally:
        torch.set_default_dtype(before)


def test_probes_start_apart_and_see_each_video_once_an_epoch(spy: type[_Spy]) -> None:
    _train()
    starts = [probe.linear.weight.sum().item() for probe in spy.initial]
    assert len(set(starts)) == len(starts)
    epochs = [torch.cat([tokens for tokens, _ in spy.batches[i : i + 4]]) for i in (0, 4, 8)]
    assert not torch.equal(epochs[0], epochs[1])
    for seen in epochs:
        assert torch.equal(seen.flatten().sort()[0], _data()[0].flatten().sort()[0])


def test_a_run_is_a_function_of_its_seed() -> None:
    torch.manual_seed(5)
    first, state = _train(), torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)
    again, other = _train(), _train(dataclasses.replace(SMALL, seed=1))
    assert first.points == again.points
    weights = [result.probe.linear.weight for result in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_best_is_the_first_of_the_most_accurate() -> None:
    settings = dataclasses.replace(SMALL, learning_rates=(1e-9, 1e-2), epochs=15)
    result = _train(settings)
    assert [(p.learning_rate, p.weight_decay) for p in result.points] == [
        (1e-9, 0.4), (1e-9, 0.01), (1e-2, 0.4), (1e-2, 0.01),
    ]  # fmt: skip
    accuracies = [point.accuracy for point in result.points]
    assert accuracies[2:] == [1.0, 1.0]
    assert result.best == 2
    assert all(point.epochs == 15 for point in result.points)
    assert not result.probe.training


def test_chosen_accuracy_is_that_of_the_returned_probe_over_views() -> None:
    settings = dataclasses.replace(SMALL, epochs=1)
    features, labels = _data(views=3, seed=1, noise=3)
    result = train_grid(*_data(), features, labels, CLASSES, settings)
    scores = predict(result.probe, features)
    by_view = torch.stack([result.probe(features[:, v]).softmax(-1) for v in range(3)]).mean(0)
    torch.testing.assert_close(scores, by_view.detach())
    torch.testing.assert_close(predict(result.probe, features, batch_size=4), scores)
    accuracy = (scores.argmax(-1) == labels).double().mean().item()
    assert 0 < accuracy < 1
    assert result.points[result.best].accuracy == pytest.approx(accuracy)


def test_a_probe_that_diverges_never_wins_nor_changes_the_others() -> None:
    wild = dataclasses.replace(SMALL, learning_rates=(1e38, 1e-2), epochs=15)
    tame = dataclasses.replace(wild, learning_rates=(1e-9, 1e-2))
    result, expected = _train(wild), _train(tame)
    assert [point.accuracy for point in result.points[:2]] == [None, None]
    assert result.points[2:] == expected.points[2:]
    assert result.best == expected.best
    assert torch.equal(result.probe.linear.weight, expected.probe.linear.weight)


def test_a_grid_that_diverges_as_a_whole_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"learning_rates: no probe stayed finite.*1e\+38"):
        _train(dataclasses.replace(SMALL, learning_rates=(1e38,)))


@pytest.mark.parametrize("epochs", [5, 6, 7, 10, 13, 20, 50, 100])
def test_halving_costs_at_most_six_trainings_of_one_probe(epochs: int) -> None:
    cost, alive, last = 0, 20, 0
    for rung, kept in sorted(halving_plan(20, epochs).items()):
        cost += alive * (rung - last)
        assert 0 < kept <= alive
        alive, last = kept, rung
    cost += alive * (epochs - last)
    assert cost <= 6 * epochs
    assert epochs != 20 or cost == 104


def test_halving_trains_what_its_plan_says_and_chooses_among_the_finishers(
    spy: type[_Spy],
) -> None:
    settings = dataclasses.replace(
        SMALL, learning_rates=(3e-3, 1e-3, 1e-4, 1e-5, 0.0), weight_decays=(0.4, 0.1, 0.01, 0.0),
        epochs=5, depth=1, halving=True,
    )  # fmt: skip
    result = _train(settings)
    assert halving_plan(20, 5) == {1: 4, 2: 2}
    assert sorted(point.epochs for point in result.points) == [1] * 16 + [2] * 2 + [5] * 2
    assert sum(point.epochs for point in result.points) == 30
    assert result.points[result.best].epochs == 5
    assert all(point.accuracy is not None for point in result.points)
    assert len(spy.batches) == 5 * 4


def test_progress_counts_steps() -> None:
    calls: list[tuple[int, int]] = []
    _train(progress=lambda done, total: calls.append((done, total)))
    assert calls == [(step, 12) for step in range(1, 13)]
