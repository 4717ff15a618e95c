"""FSDP2: weights, gradients and the optimiser's state are divided among the devices."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from lightning_fabric.strategies import ModelParallelStrategy
from torch import nn

from salt_plugin.methods import VideoMethod
from salt_plugin.models import FrozenTeacher
from salt_plugin.models.block import BlockStack
from salt_plugin.models.divided import whole

# What methods call of encoders and predictors, beside `forward`: weights are gathered for it.
ENTRIES = ("forward_sets", "forward_patches")


def strategy(devices: int, timeout: timedelta) -> ModelParallelStrategy:
    """Returns Fabric's strategy, which divides a method among all devices.

    Args:
        devices: That train together, on all nodes.
        timeout: How long a process waits for the others.
    """
    return ModelParallelStrategy(divide, devices, 1, timeout=timeout)


def divide(method: VideoMethod, mesh: Any) -> VideoMethod:
    """Divides what is trained, and what follows it as moving average; moves all to the device.

    A block is gathered when it computes, and what is no block with the part that it is in. A frozen
    teacher stays whole on each device.
    """
    # Takes seconds to import, which no other strategy needs.
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    over = {"mesh": mesh["data_parallel"], "reshard_after_forward": True}
    for part in method.children():
        if isinstance(part, FrozenTeacher) or not list(part.parameters()):
            part.to(over["mesh"].device_type)
            continue
        for stack in part.modules():
            for block in stack if isinstance(stack, BlockStack) else ():
                fully_shard(block, **over)
        fully_shard(part, **over)
        for entry in ENTRIES:
            if hasattr(part, entry):
                register_fsdp_forward_method(part, entry)
    return method


class Undivided:
    """Makes whole copies of a method that is divided later.

    Args:
        method: Before it is divided.
    """

    def __init__(self, method: VideoMethod) -> None:
        self._method = method
        shapes = {id(one): _like(one, one.to("meta")) for one in method.parameters()}
        self._shape = copy.deepcopy(method, {**shapes, **self._shared()})

    def copy(self) -> VideoMethod:
        """Returns a whole copy, on the device; every process has to call this.

        A frozen teacher is not copied.
        """
        own, empty = self._method.parameters(), self._shape.parameters()
        weights = {
            id(shape): _like(one, whole(one.detach()))
            for one, shape in zip(own, empty, strict=True)
            if one is not shape
        }
        return copy.deepcopy(self._shape, {**weights, **self._shared()})

    def _shared(self) -> dict[int, nn.Module]:
        frozen = (one for one in self._method.children() if isinstance(one, FrozenTeacher))
        return {id(one): one for one in frozen}


def _like(parameter: nn.Parameter, value: Any) -> nn.Parameter:
    return nn.Parameter(value, parameter.requires_grad)
