"""Time of a training step by part, against a plain step of other people's modules.

    python benchmarks/step.py [--encoder vit_tiny] [--size 112] [--batch-size 4] [--json]

The reference is assembled from Hugging Face's VJEPA2 modules, or from V-JEPA 2's repository.

Ours and the reference take turns on the same clips and masks, so that a noisy machine slows both;
compare ratios, not milliseconds of different runs (docs/benchmarks/step.md).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from reference_step import ReferenceStep
from torch import nn
from torch.profiler import ProfilerActivity, profile
from vjepa2_step import VJEPA2Step

from salt_plugin.batch import Batch, mask_sets
from salt_plugin.compute import pixel_teacher_step, salt_step
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import MultiBlockMasks, StepMasks
from salt_plugin.methods import SALT, PixelTeacher, Recipe, VideoMethod
from salt_plugin.models import FrozenTeacher, Predictor, VideoEncoder
from salt_plugin.models.encoder import gather_tokens
from salt_plugin.shapes import EncoderShape, PredictorShape

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
WARM_UP = 2


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(0)
    bench = Bench(arguments)
    if arguments.profile:
        print(bench.profile())
        return
    rounds = [bench.round() for _ in range(WARM_UP + arguments.rounds)][WARM_UP:]
    result = bench.summary(rounds)
    _print(result)
    if arguments.json:
        print(json.dumps(result, default=str))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default="vit_tiny")
    parser.add_argument("--stage", choices=("student", "teacher"), default="student")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--predictor-dim", type=int, default=192)
    parser.add_argument("--predictor-depth", type=int, default=6)
    parser.add_argument("--predictor-heads", type=int, help="default: 32 channels a head")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="compile our blocks")
    parser.add_argument("--activation-checkpointing", action="store_true", help="in ours")
    reference = parser.add_mutually_exclusive_group()
    reference.add_argument("--no-reference", action="store_true")
    reference.add_argument("--vjepa2", type=Path, help="a checkout of V-JEPA 2, as the reference")
    parser.add_argument("--profile", action="store_true", help="only our step, by kernel")
    parser.add_argument("--json", action="store_true", help="one last line of JSON")
    given = parser.parse_args()
    if given.vjepa2 and given.stage == "teacher":
        parser.error("--vjepa2 has no pixel teacher: leave out --stage teacher")
    return given


class Bench:
    """Our step and the reference on one device."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device = torch.device(arguments.device)
        self.dtype = DTYPES[arguments.dtype]
        self.shape = EncoderShape.named(arguments.encoder)
        heads = arguments.predictor_heads or max(1, arguments.predictor_dim // 32)
        self.predictor = PredictorShape(arguments.predictor_dim, arguments.predictor_depth, heads)
        self.grid = self.shape.grid(arguments.frames, arguments.size, arguments.size)
        clips = arguments.batch_size
        self.masks = StepMasks(MultiBlockMasks(), self.grid, seed=0, clips=clips, group=clips)
        self.steps = count()
        sides = (arguments.frames, arguments.size, arguments.size)
        self.clips = torch.randn(arguments.batch_size, 3, *sides, device=self.device)
        self.ours = self._ours().to(self.device)
        self.optimizer = self.ours.optimizer()
        self.reference: Any = None
        if not (arguments.no_reference or arguments.profile):
            given = (self.shape, self.predictor, arguments.frames, arguments.size)
            self.reference = (
                VJEPA2Step(arguments.vjepa2, *given)
                if arguments.vjepa2
                else ReferenceStep(*given, arguments.stage == "teacher")
            ).to(self.device)
            self.reference_optimizer = torch.optim.AdamW(self.reference.trained(), lr=1e-4)

    def round(self) -> dict[str, Any]:
        """Times one step of each on a new batch."""
        batch, masks_s = self._timed(self._batch)
        self._forget_peak()
        loss, ours_s = self._timed(lambda: self._step(self.ours, self.optimizer, batch))
        peak_bytes = self._peak_bytes()
        parts = {"masks": masks_s, **self._parts(batch)}
        reference_s = reference_peak = None
        if self.reference is not None:
            self._forget_peak()
            _, reference_s = self._timed(
                lambda: self._step(self.reference, self.reference_optimizer, batch)
            )
            reference_peak = self._peak_bytes()
        return {
            "ours_s": ours_s,
            "reference_s": reference_s,
            "parts_s": parts,
            "flops": self._flops(batch),
            "matrix_peak": self._matrix_peak(),
            "peak_bytes": peak_bytes,
            "reference_peak_bytes": reference_peak,
            "loss": loss,
        }

    def profile(self, steps: int = 3) -> str:
        """Returns a table of the time of our step by kernel."""
        for _ in range(WARM_UP):
            self._step(self.ours, self.optimizer, self._batch())
        batch = self._batch()
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as found:
            for _ in range(steps):
                self._step(self.ours, self.optimizer, batch)
            _synchronise(self.device)
        order = f"self_{self.device.type}_time_total"
        rows = found.key_averages()
        return str(rows.table(sort_by=order, row_limit=25, max_name_column_width=70))

    def summary(self, rounds: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns medians over the rounds."""
        arguments = self.arguments
        step_s = statistics.median(entry["ours_s"] for entry in rounds)
        peak = max(entry["matrix_peak"] for entry in rounds)
        flops = [entry["flops"] / entry["ours_s"] for entry in rounds]
        parts = {
            name: 1e3 * statistics.median(entry["parts_s"][name] for entry in rounds)
            for name in rounds[0]["parts_s"]
        }
        result: dict[str, Any] = {
            "setting": {**vars(arguments), "predictor_heads": self.predictor.num_heads},
            "machine": _machine(self.device),
            "matrix_peak_tflops": peak / 1e12,
            "ours": {
                "step_ms": 1e3 * step_s,
                "clips_per_s": arguments.batch_size / step_s,
                "peak_share": statistics.median(flops) / peak,
                "peak_memory_mib": max(entry["peak_bytes"] for entry in rounds) / 2**20,
                "parts": parts,
            },
            "model_tflop": statistics.mean(entry["flops"] for entry in rounds) / 1e12,
        }
        if self.reference is not None:
            reference_s = statistics.median(entry["reference_s"] for entry in rounds)
            result["reference"] = {
                "step_ms": 1e3 * reference_s,
                "clips_per_s": arguments.batch_size / reference_s,
                "peak_memory_mib": max(entry["reference_peak_bytes"] for entry in rounds) / 2**20,
            }
            result["reference_over_ours"] = statistics.median(
                entry["reference_s"] / entry["ours_s"] for entry in rounds
            )
        return result

    def _ours(self) -> VideoMethod:
        recipe = Recipe(total_steps=10**6, warmup_steps=10**4)
        encoder, stage = VideoEncoder(self.shape), self.arguments.stage
        out_dim = self.shape.embed_dim if stage == "student" else self.shape.patch_dim
        head = Predictor(self.shape.embed_dim, out_dim, self.predictor)
        method: VideoMethod
        if stage == "student":
            low = None if self.dtype == torch.float32 else self.dtype
            teacher = FrozenTeacher(VideoEncoder(self.shape), low)
            method = SALT(encoder, head, teacher, LatentLoss(), recipe)
        else:
            method = PixelTeacher(encoder, head, PixelLoss(), recipe)
        for stack in method.block_stacks():
            stack.activation_checkpointing = self.arguments.activation_checkpointing
            if self.arguments.compile:
                stack.compile_blocks()
        return method

    def _batch(self) -> Batch:
        clips, step = len(self.clips), next(self.steps)
        masks = mask_sets(self.masks, step, range(clips))
        return Batch(self.clips, torch.full((clips,), -1), masks, step).to(self.device)

    def _autocast(self) -> torch.autocast:
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=enabled)

    def _step(self, model: Any, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
        with self._autocast():
            loss = model.loss(batch) if model is self.reference else model(batch)
        loss.backward()
        self._update(optimizer)
        return loss.item()

    @staticmethod
    def _update(optimizer: torch.optim.Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, 0.02)
        optimizer.step()
        optimizer.zero_grad()

    def _parts(self, batch: Batch) -> dict[str, float]:
        """One more step of ours, with a stop after every part."""
        seconds: dict[str, float] = defaultdict(float)

        @contextmanager
        def part(name: str) -> Any:
            _synchronise(self.device)
            began = time.perf_counter()
            yield
            _synchronise(self.device)
            seconds[name] += time.perf_counter() - began

        ours: Any = self.ours
        encoder, head = ours.trained()
        with self._autocast():
            with part("patches"):
                patches = encoder.patchify(batch.clips)
            with part("teacher"):
                wanted = ours.teacher(patches, self.grid) if isinstance(ours, SALT) else patches
            with part("student"):
                encoded = encoder.forward_sets(patches, self.grid, batch.masks)
            with part("predictor"):
                predicted = head.forward_sets(encoded, batch.masks, self.grid)
                losses = [
                    ours.loss(found, gather_tokens(wanted, mask.target))
                    for found, mask in zip(predicted, batch.masks, strict=True)
                ]
                loss = batch.mean(losses)
        with part("backward"):
            loss.backward()
        with part("optimizer"):
            self._update(self.optimizer)
        return dict(seconds)

    def _flops(self, batch: Batch) -> int:
        groups = self.masks.lengths(batch.step)
        if self.arguments.stage == "teacher":
            parts = pixel_teacher_step(self.shape, self.predictor, groups)
        else:
            everything = math.prod(self.grid)
            parts = salt_step(self.shape, self.predictor, self.shape, everything, groups)
        return sum(parts.values())

    def _matrix_peak(self) -> float:
        """FLOP/s of a large matrix product in the same precision."""
        n = 2048 if self.device.type == "cpu" else 8192
        a, b = torch.randn(2, n, n, device=self.device).to(self.dtype)
        repeats = 1 if self.device.type == "cpu" else 10
        fastest = min(self._timed(lambda: [a @ b for _ in range(repeats)])[1] for _ in range(4))
        return 2 * n**3 * repeats / fastest

    def _timed(self, work: Callable[[], Any]) -> tuple[Any, float]:
        _synchronise(self.device)
        began = time.perf_counter()
        found = work()
        _synchronise(self.device)
        return found, time.perf_counter() - began

    def _forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")

    def _peak_bytes(self) -> int:
        """Memory of both models and of the step that was just made."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status")
        if status.exists():
            (line,) = [row for row in status.read_text().splitlines() if row.startswith("VmHWM")]
            return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _machine(device: torch.device) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    capability = f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else capability,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _print(result: dict[str, Any]) -> None:
    ours, setting = result["ours"], result["setting"]
    print(
        "{encoder}, {stage}, {size} px, {frames} frames, batch {batch_size}, {dtype}".format(
            **setting
        ),
        f"on {result['machine']['device']}",
    )
    print(f"  ours       {ours['step_ms']:9.1f} ms   {ours['clips_per_s']:7.2f} clips/s")
    if "reference" in result:
        reference = result["reference"]
        print(
            f"  reference  {reference['step_ms']:9.1f} ms   {reference['clips_per_s']:7.2f} clips/s"
            f"   {result['reference_over_ours']:.2f} times ours"
        )
    print(
        f"  {result['model_tflop']:.3f} TFLOP a step, {ours['peak_share']:.0%} of the measured "
        f"{result['matrix_peak_tflops']:.2f} TFLOP/s of matrix products; peak memory "
        f"{ours['peak_memory_mib']:.0f} MiB"
    )
    for name, milliseconds in ours["parts"].items():
        print(f"    {name:<10} {milliseconds:8.1f} ms")


if __name__ == "__main__":
    main()
