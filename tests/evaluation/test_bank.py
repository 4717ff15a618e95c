from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.models.attentive import AttentiveProbe

CLIPS, TOKENS, DIM, CLASSES = 5, 7, 24, 6


def _probes(count: int = 3, depth: int = 4) -> list[AttentiveProbe]:
    torch.manual_seed(0)
    probes = [AttentiveProbe(DIM, CLASSES, num_heads=4, depth=depth) for _ in range(count)]
    for probe in probes:
        for parameter in probe.double().parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return probes


def _batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(CLIPS, TOKENS, DIM, generator=generator, dtype=torch.float64)
    return tokens, torch.randint(CLASSES, (CLIPS,), generator=generator)


def _alone(probe: AttentiveProbe, tokens: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    loss = F.cross_entropy(probe(tokens), labels)
    return loss.detach(), list(torch.autograd.grad(loss, list(probe.parameters())))


def _gradients(probe: AttentiveProbe) -> list[Tensor]:
    return [parameter.grad for parameter in probe.parameters() if parameter.grad is not None]


# A clip, two, and all at once; and what the device takes.
@pytest.mark.parametrize("most_tokens", [1, 2 * TOKENS, CLIPS * TOKENS, None])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_each_probe_has_the_loss_logits_and_gradients_it_has_alone(
    depth: int, most_tokens: int | None
) -> None:
    probes, (tokens, labels) = _probes(depth=depth), _batch()
    bank = ProbeBank(probes, torch.float64, most_tokens)
    losses, logits = bank.backward(tokens, labels), bank.logits(tokens)
    for probe, loss, found in zip(probes, losses, logits, strict=True):
        expected_loss, expected = _alone(probe, tokens, labels)
        torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-6, atol=0)
        torch.testing.assert_close(found, probe(tokens).detach(), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(_gradients(probe), expected, rtol=1e-9, atol=1e-11)


def test_gradients_add_up_over_calls() -> None:
    probes, (tokens, labels) = _probes(), _batch()
    bank = ProbeBank(probes, torch.float64)
    bank.backward(tokens, labels)
    once = [grad.clone() for grad in _gradients(probes[0])]
    bank.backward(tokens, labels)
    torch.testing.assert_close(_gradients(probes[0]), [2 * grad for grad in once])


def test_a_probe_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    probes, (tokens, labels) = _probes(), _batch()
    bank = ProbeBank(probes, torch.float64)
    bank.backward(tokens, labels)
    before = [_gradients(probe) for probe in probes[::2]]
    for probe in probes:
        probe.zero_grad()
    probes[1].linear.weight.data.fill_(torch.inf)
    losses = bank.backward(tokens, labels)
    assert losses.isfinite().tolist() == [True, False, True]
    assert bank.logits(tokens).isfinite().flatten(1).all(1).tolist() == [True, False, True]
    for probe, expected in zip(probes[::2], before, strict=True):
        torch.testing.assert_close(_gradients(probe), expected, rtol=0, atol=0)


def test_bfloat16_is_that_of_autocast_and_gradients_are_float32() -> None:
    probes, (tokens, labels) = [probe.float() for probe in _probes()], _batch()
    bank = ProbeBank(probes, torch.bfloat16)
    bank.backward(tokens.float(), labels)
    for probe in probes:
        found = _gradients(probe)
        probe.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = probe(tokens.float())
        F.cross_entropy(logits.float(), labels).backward()
        torch.testing.assert_close(found, _gradients(probe))
        assert found[0].dtype == torch.float32
    assert bank.logits(tokens.bfloat16()).dtype == torch.float32
