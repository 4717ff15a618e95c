"""Optimiser and schedules of the paper's training recipe, with the host's building blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.optim import update_param_groups
from lightly.utils.scheduler import cosine_schedule, cosine_warmup_schedule
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from salt_plugin.models.attention import QKV


@dataclass(frozen=True)
class Recipe:
    """AdamW with warm-up, cosine and cool-down, a rising weight decay, and gradient clipping.

    Attributes:
        total_steps: Steps of the stage.
        lr: Peak learning rate.
        weight_decay: Weight decay at the start; norms and biases have none.
        final_weight_decay: At the end of its cosine.
        betas: Of AdamW.
        warmup_start: Learning rate at the start of the warm-up, as a share of `lr`.
        warmup_steps: Length of the warm-up.
        final_lr: Learning rate at the end of the cosine, as a share of `lr`.
        cooldown_share: Share of the steps, the last ones, in which the learning rate goes linearly
            from where its cosine ends to `cooldown_lr`.
        cooldown_lr: Learning rate at the last step of that, as a share of `lr`.
        stretch: Cosines are made for so many times their steps, and stop before they are through.
        clip_grad: Largest gradient norm; 0 for no limit.
        clip_each: Whether each trained module is clipped by its own norm, or all by one.
        clip_after: Clipping begins after so many times the warm-up's steps.
        fused: Whether to use the fused AdamW, which float16 with gradient scaling does not allow.
        steps_before: Steps of the runs that this one continues; schedules do not count them.
    """

    total_steps: int
    lr: float = 6.25e-4
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_start: float = 0.32
    warmup_steps: int = 10_000
    final_lr: float = 0.0016
    cooldown_share: float = 0.0
    cooldown_lr: float = 0.0
    stretch: float = 1.0
    clip_grad: float = 0.02
    clip_each: bool = False
    clip_after: float = 0.0
    fused: bool = True
    steps_before: int = 0

    def optimizer(
        self, modules: Sequence[nn.Module], scales: Mapping[nn.Parameter, float] | None = None
    ) -> AdamW:
        """Returns AdamW over all parameters of the modules.

        Args:
            modules: What is trained.
            scales: What the learning rate of a parameter is multiplied by, where that is not 1.
        """
        decay, no_decay = get_weight_decay_parameters(modules)
        kinds = (("decay", decay, self.weight_decay), ("no_decay", no_decay, 0.0))
        groups = []
        for name, parameters, weight_decay in kinds:
            scale_of = {one: (scales or {}).get(one, 1.0) for one in parameters}
            for scale in sorted(set(scale_of.values()), reverse=True) or [1.0]:
                params = [one for one in parameters if scale_of[one] == scale]
                groups.append(
                    {"name": name, "params": params, "weight_decay": weight_decay}
                    | ({} if scale == 1 else {"lr_scale": scale})
                )
        optimizer = AdamW(groups, lr=self.lr, betas=self.betas, fused=self.fused)
        optimizer.register_state_dict_post_hook(
            lambda own, state: _reordered(own, state, modules, QKV.to_file)
        )
        optimizer.register_load_state_dict_pre_hook(
            lambda own, state: _reordered(own, state, modules, QKV.from_file)
        )
        return optimizer

    def lr_at(self, position: float) -> float:
        """Returns the learning rate after `position` of `total_steps` steps, counted from 0."""
        begins = self.total_steps * (1 - self.cooldown_share)
        share = cosine_warmup_schedule(
            step=min(position, begins),
            max_steps=max(begins * self.stretch, self.warmup_steps, 1),
            start_value=1.0,
            end_value=self.final_lr,
            warmup_steps=self.warmup_steps,
            warmup_start_value=self.warmup_start,
        )
        if self.cooldown_share and position >= begins:
            done = min(1.0, (position + 1 - begins) / (self.total_steps - begins))
            share += (self.cooldown_lr - share) * done
        return float(self.lr * share)

    def weight_decay_at(self, position: float) -> float:
        """Returns the weight decay after `position` of `total_steps` steps, counted from 0."""
        steps = self.total_steps * self.stretch
        return float(cosine_schedule(position, steps, self.weight_decay, self.final_weight_decay))

    def apply(self, optimizer: torch.optim.Optimizer, position: float) -> None:
        """Sets learning rate and weight decay for the step after `position` steps."""
        for group in optimizer.param_groups:
            group["lr"] = self.lr_at(position) * group.get("lr_scale", 1.0)
        decay = {"name": "decay", "weight_decay": self.weight_decay_at(position)}
        update_param_groups(optimizer, updates=[decay])


def _reordered(
    optimizer: Optimizer,
    state: dict[str, Any],
    modules: Iterable[nn.Module],
    reorder: Callable[[QKV, Tensor], Tensor],
) -> dict[str, Any]:
    """Returns a state dict of an optimiser whose rows of `QKV` are in another order."""
    owners = {
        parameter: part
        for module in modules
        for part in module.modules()
        if isinstance(part, QKV)
        for parameter in part.parameters()
    }
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    of_each = dict(state["state"])
    for number, parameter in enumerate(parameters):
        if parameter in owners and number in of_each:
            of_each[number] = {
                name: reorder(owners[parameter], value) if value.ndim else value
                for name, value in of_each[number].items()
            }
    return {**state, "state": of_each}
