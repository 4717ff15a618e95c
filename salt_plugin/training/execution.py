"""How a stage's models are executed: precision, compilation, recomputation."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch

from salt_plugin.config import ProbeConfig, RunConfig, probe_config, registry
from salt_plugin.config.evaluation import CLIP
from salt_plugin.data.sampler import micro_batches
from salt_plugin.data.shared_memory import AHEAD, clip_bytes, require_shared_memory
from salt_plugin.data.workers import loader_workers
from salt_plugin.errors import ConfigError
from salt_plugin.methods import VideoMethod
from salt_plugin.shapes import local_side
from salt_plugin.training.world import sharing_cores, started_tasks

AUTOCAST_DTYPES = {
    "16": torch.float16,
    "16-mixed": torch.float16,
    "bf16": torch.bfloat16,
    "bf16-mixed": torch.bfloat16,
}

# Compilation takes the better part of a minute; a shorter stage would not earn it back.
COMPILE_FROM_STEPS = 1000


def autocast_dtype(config: RunConfig) -> torch.dtype | None:
    """Returns the type of autocast under `trainer.precision`, None where there is none."""
    return AUTOCAST_DTYPES.get(str(config.trainer.precision))


def uses_gpu(config: RunConfig) -> bool:
    """Tells whether to train on GPUs: where there are any, unless `trainer.gpus` is 0."""
    return torch.cuda.is_available() and config.trainer.gpus > 0


def slow_bfloat16(config: RunConfig) -> bool:
    """Tells whether training is in bfloat16 on a CPU without instructions for it.

    There a step takes many times as long as in float32 (docs/benchmarks/step.md).
    """
    if uses_gpu(config) or autocast_dtype(config) is not torch.bfloat16:
        return False
    return not (
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def devices(config: RunConfig) -> int:
    """Returns the number of devices that train together, on all nodes.

    That is one for each of the processes that srun or torchrun has started, else the GPUs of
    `trainer.gpus`, or one CPU.
    """
    tasks = started_tasks()
    if tasks is not None:
        return tasks.size
    return config.trainer.gpus if uses_gpu(config) else 1


def divides(config: RunConfig) -> bool:
    """Tells whether devices hold parts of what is trained."""
    return config.trainer.strategy == "fsdp2" and devices(config) > 1


def sharing(config: RunConfig) -> int:
    """Returns how many processes of the training share the cores that this one may use."""
    tasks = started_tasks()
    return devices(config) if tasks is None else sharing_cores(tasks)


def check_execution(config: RunConfig) -> None:
    """Checks that the GPUs, the compiler and the shared memory that are asked for are there.

    Raises:
        ConfigError: They are not.
    """
    if autocast_dtype(config) is torch.float16 and not uses_gpu(config):
        raise ConfigError(
            f"trainer.precision={config.trainer.precision}: float16 is for GPUs, and training runs "
            "on the CPU; use bf16-mixed or 32"
        )
    tasks, visible = started_tasks(), torch.cuda.device_count()
    on_node = devices(config) if tasks is None else tasks.size // tasks.nodes
    if tasks is not None:
        if uses_gpu(config) and visible not in (1, on_node):
            raise ConfigError(
                f"{on_node} processes were started on this node and see {visible} GPUs: expected a "
                "GPU for each, or one that is its own (srun --gpus-per-task=1), or trainer.gpus=0"
            )
    elif uses_gpu(config) and config.trainer.gpus > torch.cuda.device_count():
        raise ConfigError(
            f"trainer.gpus={config.trainer.gpus}: this machine has {torch.cuda.device_count()}"
        )
    if config.method.model.compile is True and not _finds_compiler():
        raise ConfigError(
            "method.model.compile=true: torch.compile needs a C++ compiler, and none of "
            f"{', '.join(_compilers())} is on the PATH; install one, set CXX, or leave it at auto"
        )

    over_batch = registry.get(config.method.name).over_batch
    if over_batch and devices(config) > 1 and config.loader.batch_size < 2:
        raise ConfigError(
            f"loader.batch_size={config.loader.batch_size}: expected at least 2 under "
            f"{config.method.name}, whose loss is over the micro-batch of all devices together"
        )
    clip, clips, count = config.method.clip, config.method.global_batch_size, devices(config)
    parts = [micro_batches(clips, config.loader.batch_size, rank, count) for rank in range(count)]
    at_once = parts[0][0]
    if divides(config):
        _check_division(config, {len(slots) for slots in parts})
    mixup = getattr(config.method, "mixup", 0)
    if mixup and any(slots.start % 2 for part in parts for slots in part):
        raise ConfigError(
            f"method.mixup={mixup:g} mixes pairs of clips, and {clips} clips of a step on {count} "
            f"devices, {config.loader.batch_size} at once, cut some in two: expected an even "
            "method.global_batch_size that loader.batch_size and the devices cut into even parts"
        )
    require_shared_memory(
        len(at_once) * (clip_bytes(clip.frames, clip.size, clip.size) + _local_bytes(config)),
        loader_workers(config.loader.num_workers, sharing(config)),
        "loader.num_workers=0",
        processes=on_node,
        ahead=config.loader.prefetch_factor or AHEAD,
    )


def _check_division(config: RunConfig, counts: set[int]) -> None:
    """Checks that devices can hold parts; `counts` are the numbers of their micro-batches."""
    key, name = "trainer.strategy=fsdp2", config.method.name
    if registry.get(name).over_batch:
        raise ConfigError(f"{key} is not for method={name}; use trainer.strategy=ddp")
    if autocast_dtype(config) is torch.float16:
        raise ConfigError(f"{key}: expected trainer.precision=bf16-mixed or 32, found 16-mixed")
    if len(counts) > 1:
        raise ConfigError(
            f"{key}: {config.method.global_batch_size} clips of a step on {devices(config)} "
            "devices give some a micro-batch more than others, and all gather weights together; "
            "expected a method.global_batch_size that the devices divide"
        )


def evaluation_views(config: RunConfig, **more: Any) -> ProbeConfig:
    """Returns how clips are read for an evaluation within a run: as in its training, but `more`."""
    method, loader = config.method, config.loader
    given = {key: getattr(method.clip, key) for key in CLIP}
    given |= {
        "feature_batch_size": loader.batch_size,
        "workers": loader_workers(loader.num_workers, sharing(config)),
        "stall": method.data.stall,
    }
    return probe_config(**(given | more))


def _local_bytes(config: RunConfig) -> int:
    """Returns the bytes of a clip's local views, where its transform makes any."""
    given, clip = config.method.transform, config.method.clip
    side = given.get("local_size") or local_side(clip.size, config.method.model.patch_size)
    return int(given.get("local_views", 0)) * clip_bytes(clip.frames, side, side)


def compiles(config: RunConfig, total_steps: int) -> bool:
    """Tells whether a stage is compiled.

    `auto` compiles on GPUs, from `COMPILE_FROM_STEPS` steps on, where there is a compiler. On
    CPUs it gains too little to wait for (docs/benchmarks/step.md).
    """
    setting = config.method.model.compile
    if setting == "auto":
        return uses_gpu(config) and total_steps >= COMPILE_FROM_STEPS and _finds_compiler()
    return bool(setting)


def set_up(method: VideoMethod, config: RunConfig, total_steps: int) -> None:
    """Compiles the blocks of what is trained, and sets their recomputation, where asked for."""
    for stack in method.block_stacks():
        stack.activation_checkpointing = config.method.model.activation_checkpointing
        if compiles(config, total_steps):
            stack.compile_blocks()


def _compilers() -> list[str]:
    return [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]


def _finds_compiler() -> bool:
    return any(shutil.which(name) for name in _compilers())
