"""LeVJEPA: its loss against one written out, and its batch cut over processes."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from salt_plugin.batch import Batch, mask_sets
from salt_plugin.masks import StepMasks, TokenDropping
from salt_plugin.methods import LeVJEPA, Recipe
from salt_plugin.methods.levjepa import BatchNorm
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.shapes import ProjectorShape

GRID = (4, 6, 6)
SHAPE = EncoderShape(
    "small", 24, 1, 2, patch_size=4, tubelet_size=1, cls_token=True, block_causal=True
)
PROJECTOR = ProjectorShape(hidden_dim=20, out_dim=8, directions=16)
CLIPS, VIEWS = 6, 3
MASKS = StepMasks(TokenDropping(0.6, 2), GRID, seed=0, clips=CLIPS, group=4)
CUTS = [[range(3), range(3, 6)], [range(4), range(4, 6)]]


def _method(synchronised: bool = False) -> LeVJEPA:
    torch.manual_seed(0)
    encoder = VideoEncoder(SHAPE, init_std=0.2)
    return LeVJEPA(encoder, PROJECTOR, Recipe(total_steps=10), sync_batch_norm=synchronised)


def _batch(slots: range = range(CLIPS), step: int = 1, seed: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(CLIPS, 3, 4, 24, 24, generator=generator)
    local = torch.randn(CLIPS, 2, 3, 4, 12, 12, generator=generator)
    own = slice(slots.start, slots.stop)
    return Batch(
        pixels[own],
        torch.full((len(slots),), -1),
        mask_sets(MASKS, step, slots),
        step,
        local_views=local[own],
        seed=seed,
    )


def _plain_sigreg(z_bd: Tensor, directions_ds: Tensor) -> float:
    """Epps and Pulley's statistic, knot by knot: 17 from 0 to 3, of a function that is even."""
    total, dt = 0.0, 3 / 16
    B = len(z_bd)
    for direction in directions_ds.T:
        along = [float(sum(z * a for z, a in zip(row, direction, strict=True))) for row in z_bd]
        for knot in range(17):
            t = knot * dt
            gauss = float(np.exp(-(t**2) / 2))
            real = sum(np.cos(t * x) for x in along) / B
            imaginary = sum(np.sin(t * x) for x in along) / B
            share = dt if knot in (0, 16) else 2 * dt
            total += share * gauss * ((real - gauss) ** 2 + imaginary**2)
    return B * total / directions_ds.shape[1]


def test_the_loss_is_that_of_the_formula() -> None:
    method, batch = _method(), _batch()
    assert batch.local_views is not None
    encoder, contexts = method.encoder, batch.contexts()
    # One view of one clip at a time, through the encoder that tests/models holds to plain blocks.
    cls_tokens = [
        encoder(batch.clips[b : b + 1], contexts[0][b : b + 1])[0, 0] for b in range(CLIPS)
    ]
    for view in (0, 1):
        for b in range(CLIPS):
            clip = batch.local_views[b, view][None]
            cls_tokens.append(encoder(clip, contexts[1 + view][b : b + 1])[0, 0])
    first, norm, _, last = method.projector.layers
    hidden = torch.stack(cls_tokens) @ first.weight.T
    assert first.bias is None
    spread = ((hidden - hidden.mean(0)) ** 2).mean(0)
    hidden = (hidden - hidden.mean(0)) / (spread + norm.eps).sqrt() * norm.weight + norm.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    z_vbd = (hidden @ last.weight.T + last.bias).unflatten(0, (VIEWS, CLIPS)).detach()
    torch.testing.assert_close(method.embed(batch).detach(), z_vbd, rtol=1e-4, atol=1e-5)

    distance = np.mean([float(((z - z_vbd[0]) ** 2).mean()) for z in z_vbd])
    seed = np.random.SeedSequence((5, 1, 0x64697273)).generate_state(1)[0]
    directions = torch.randn(8, 16, generator=torch.Generator().manual_seed(int(seed)))
    directions = directions / directions.norm(dim=0)
    regular = np.mean([_plain_sigreg(z, directions) for z in z_vbd])
    assert float(method(batch).detach()) == pytest.approx(distance + 0.02 * regular, rel=1e-4)


def test_directions_are_functions_of_seed_and_step_and_of_nothing_else() -> None:
    method = _method()
    torch.manual_seed(1)
    loss = method(_batch())
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)  # no other draw is moved
    torch.manual_seed(2)
    assert torch.equal(method(_batch()), loss)
    assert not torch.equal(method(_batch()._replace(seed=6)), loss)
    assert not torch.equal(method(_batch()._replace(step=2)), loss)


def test_gradients_reach_every_parameter_that_is_trained() -> None:
    method = _method()
    method(_batch()).backward()
    for part in method.trained():
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all()
    assert all(parameter.grad is None for parameter in method.ema.parameters())
    decayed, not_decayed = (group["params"] for group in method.optimizer().param_groups)
    _, norm, *_ = method.projector.layers
    assert any(norm.weight is one for one in not_decayed)
    assert not any(norm.weight is one for one in decayed)


def test_the_moving_average_rises_to_its_momentum_and_is_what_is_kept() -> None:
    method = _method()
    method.momentum = 0.9
    assert method.result is method.ema
    assert not method.train().ema.training
    average = [parameter.clone() for parameter in method.ema.parameters()]
    for step in range(100):
        with torch.no_grad():
            for parameter in method.encoder.parameters():
                parameter.add_(0.01)
        momentum = min(0.9, (1 + step) / (10 + step))
        average = [
            momentum * old + (1 - momentum) * new.detach()
            for old, new in zip(average, method.encoder.parameters(), strict=True)
        ]
        method.update_ema(step)
        for old, new in zip(average, method.ema.parameters(), strict=True):
            torch.testing.assert_close(old, new.detach())
    # In a run that continues another it has risen already.
    method.recipe = replace(method.recipe, steps_before=1000)
    before = [parameter.clone() for parameter in method.ema.parameters()]
    method.update_ema(0)
    for old, new, now in zip(
        before, method.encoder.parameters(), method.ema.parameters(), strict=True
    ):
        torch.testing.assert_close(now, 0.9 * old + 0.1 * new.detach())
    method.momentum = 0.0
    method.update_ema(100)
    for old, new in zip(method.encoder.parameters(), method.ema.parameters(), strict=True):
        assert torch.equal(old, new)


def test_the_moving_average_takes_no_part_in_training() -> None:
    one, other = _method(), _method()
    with torch.no_grad():
        for parameter in other.ema.parameters():
            parameter.zero_()
    for method in (one, other):
        optimizer = method.optimizer()
        for step in range(3):
            method(_batch(step=step)).backward()
            optimizer.step()
            optimizer.zero_grad()
            method.update_ema(step)
    for mine, theirs in zip(one.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_batch_norm_of_one_process_is_torchs() -> None:
    torch.manual_seed(0)
    x, reference = torch.randn(7, 5), nn.BatchNorm1d(5)
    for norm in (BatchNorm(5), BatchNorm(5, synchronised=True)):
        torch.testing.assert_close(norm(x), reference(x))
        assert set(norm.state_dict()) == {"weight", "bias"}


def test_micro_batches_change_the_loss_because_it_is_of_a_batch() -> None:
    """What the page says: SIGReg and BatchNorm are defined on a micro-batch."""
    method = _method()
    whole = float(method(_batch()).detach())
    parts = [float(method(_batch(slots)).detach()) for slots in (range(3), range(3, 6))]
    assert abs(np.mean(parts) - whole) > 1e-3 * whole


def _gradient(method: LeVJEPA, loss: Tensor) -> Tensor:
    trained = [parameter for part in method.trained() for parameter in part.parameters()]
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, trained)])


def _on_rank(rank: int, cuts: list[range], port: int, folder: Path, task: Callable) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=len(cuts))
    torch.manual_seed(rank)  # what ranks draw otherwise must not matter
    torch.save(task(cuts[rank], len(cuts)), folder / f"{rank}.pt")
    dist.destroy_process_group()


def _together(cuts: list[range], folder: Path, task: Callable) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_on_rank, args=(rank, cuts, port, folder, task))
        for rank in range(len(cuts))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(cuts))]


def _sigreg(slots: range, size: int) -> tuple[Tensor, Tensor]:
    """Returns SIGReg of this rank's embeddings and its gradient, as DDP would average it."""
    torch.manual_seed(3)
    z_vbd = torch.randn(VIEWS, CLIPS, 8)
    own = z_vbd[:, slots.start : slots.stop].requires_grad_(True)
    method = _method()
    torch.manual_seed(4)
    loss = method.sigreg(own)
    share = len(slots) / CLIPS * size
    (gradient,) = torch.autograd.grad(share * loss, own)
    return loss.detach(), gradient / size


def _loss(slots: range, size: int) -> tuple[Tensor, Tensor]:
    """Returns this rank's share of a step's loss and gradient, as the loop takes them."""
    method = _method(synchronised=True)
    share = len(slots) / CLIPS * size
    part = share * method(_batch(slots))
    return part.detach() / size, _gradient(method, part) / size


@pytest.mark.parametrize("cuts", CUTS)
def test_sigreg_over_two_processes_is_that_of_one_batch(cuts: list[range], tmp_path: Path) -> None:
    whole_loss, whole_gradient = _sigreg(range(CLIPS), 1)
    found = _together(cuts, tmp_path, _sigreg)
    for loss, _ in found:
        torch.testing.assert_close(loss, whole_loss)
    gradient = torch.cat([one for _, one in found], dim=1)
    torch.testing.assert_close(gradient, whole_gradient)


@pytest.mark.parametrize("cuts", CUTS)
def test_a_step_of_two_processes_is_that_of_one_batch(cuts: list[range], tmp_path: Path) -> None:
    whole_loss, whole_gradient = _loss(range(CLIPS), 1)
    found = _together(cuts, tmp_path, _loss)
    torch.testing.assert_close(sum(loss for loss, _ in found), whole_loss)
    gradient = sum(one for _, one in found)
    assert (gradient - whole_gradient).norm() < 1e-5 * whole_gradient.norm()
