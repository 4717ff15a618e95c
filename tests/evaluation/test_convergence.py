from __future__ import annotations

import math
from dataclasses import replace

import torch

from salt_plugin.config import ProbeConfig
from salt_plugin.evaluation.convergence import unconverged
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.protocol import probe

STEPS = torch.arange(200)


def test_a_loss_near_that_of_a_guess_has_not_converged() -> None:
    reason = unconverged(torch.full((200,), math.log(10)), 10)
    assert reason == "after 200 steps its training loss is 2.30, that of a guess 2.30"
    assert unconverged(torch.full((1,), 0.1), 10) is None


def test_a_loss_that_falls_late_has_not_converged() -> None:
    late = math.log(10) * torch.where(STEPS < 150, 1.0, 0.1)
    assert "fell until the end, from 2.30 at half of 200 steps to 0.23" in str(
        unconverged(late, 10)
    )
    assert unconverged(math.log(10) * torch.exp(-STEPS / 20), 10) is None
    assert unconverged(1.0 + torch.exp(-STEPS / 20), 10) is None  # no better than that, but flat


def test_a_report_says_what_has_not_converged(nano: FrozenEncoder, small: ProbeConfig) -> None:
    config = replace(small, protocols=["attentive"])
    short, long = (probe(nano, replace(config, epochs=n)).as_dict() for n in (1, 60))
    assert "training loss" in short["attentive"]["unconverged"]
    assert long["attentive"]["unconverged"] is None
