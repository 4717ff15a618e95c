"""Times a step of the grid of attentive probes against a loop over single probes.

    python benchmarks/probe.py --dim 192 --batch-size 16 --clips 64
    python benchmarks/probe.py --dim 1024 --probes 5 --batch-size 4 --clips 4 --json

The loop is V-JEPA 2's: each probe a module of its own with its own `torch.optim.AdamW`, autocast,
`F.scaled_dot_product_attention`, forward and backward one after the other on the same tokens.
`--recompute` makes it run each block a second time in the backward pass, as that repository does.
Loss and gradients of both are compared first. Steps of both take turns; the least time counts.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import platform
import time
from collections.abc import Callable, Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from salt_plugin.evaluation.attentive import AttentiveProbe
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.evaluation.grid import GridSettings, halving_plan

GRID = GridSettings()
# Side of the square product whose rate is the matrix peak.
PEAK = 2048
GRID_POINTS = [(rate, decay) for rate in GRID.learning_rates for decay in GRID.weight_decays]


def main() -> None:
    arguments = _arguments()
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    torch.manual_seed(0)
    batches = [
        (
            torch.randn(size, arguments.tokens, arguments.dim).to(device, dtype),
            torch.randint(arguments.classes, (size,)).to(device),
        )
        for size in _sizes(arguments.clips, arguments.batch_size)
    ]
    banked, looped = (_probes(arguments).prepared(device) for _ in range(2))
    difference = _difference(banked, looped, batches[0], dtype, arguments.recompute)
    tokens, labels = batches[0]
    wide = tokens.repeat(arguments.probes, 1, 1), labels.repeat(arguments.probes)
    one = _Probes(banked.probes[:1])
    product = functools.partial(torch.matmul, *torch.randn(2, PEAK, PEAK).to(device, dtype))
    least: dict[str, float] = {}
    for batch in batches:
        turns: dict[str, Callable[[], object]] = {
            "loop": functools.partial(_loop, looped, batch, dtype, arguments.recompute),
            "bank": functools.partial(_bank, banked, batch, dtype),
            "one_large_batch": functools.partial(_bank, one, wide, dtype),
            **{f"product {i}": product for i in range(5)},
        }
        for name, turn in turns.items():
            took = _seconds(device, turn)
            name = name.split()[0]
            least[name] = min(least.get(name, took), took)
    peak = 2 * PEAK**3 / least.pop("product")
    needed = arguments.probes * len(labels) * _flops(banked.probes[0], arguments.tokens)
    result = {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "largest_gradient_difference": difference,
        **{f"{name}_seconds": seconds for name, seconds in least.items()},
        "ratio": least["bank"] / least["loop"],
        "matrix_peak_tflops": peak / 1e12,
        **{f"{name}_share_of_peak": needed / took / peak for name, took in least.items()},
        **_halving_cost(),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:28} {value}" for name, value in result.items()))


class _Probes:
    """Probes, and optimisers for them as `train_grid` and the loop have them."""

    def __init__(self, probes: list[AttentiveProbe]) -> None:
        self.probes = probes
        self.together: torch.optim.AdamW | None = None
        self.alone: list[torch.optim.AdamW] = []

    def prepared(self, device: torch.device) -> _Probes:
        for probe in self.probes:
            probe.to(device)
        groups = [
            {"params": list(probe.parameters()), "lr": rate, "weight_decay": decay}
            for probe, (rate, decay) in zip(self.probes, GRID_POINTS, strict=False)
        ]
        self.together = torch.optim.AdamW(groups, fused=True)
        self.alone = [torch.optim.AdamW([group]) for group in groups]
        return self


def _probes(arguments: argparse.Namespace) -> _Probes:
    torch.manual_seed(1)
    return _Probes(
        [AttentiveProbe(arguments.dim, arguments.classes) for _ in range(arguments.probes)]
    )


def _bank(banked: _Probes, batch: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    ProbeBank(banked.probes, dtype).backward(*batch)
    if banked.together is not None:
        banked.together.step()
    for probe in banked.probes:
        probe.zero_grad()


def _loop(looped: _Probes, batch: tuple[Tensor, ...], dtype: torch.dtype, recompute: bool) -> None:
    with _as_vjepa2(looped.probes, recompute):
        for probe, optimizer in zip(looped.probes, looped.alone, strict=True):
            _single(probe, batch, dtype)
            optimizer.step()
            optimizer.zero_grad()


def _single(probe: AttentiveProbe, batch: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    tokens, labels = batch
    with torch.autocast(tokens.device.type, dtype, enabled=dtype != torch.float32):
        loss = F.cross_entropy(probe(tokens), labels)
    loss.backward()


@contextlib.contextmanager
def _as_vjepa2(probes: list[AttentiveProbe], recompute: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for block in (block for probe in probes for block in probe.pooler.blocks):
            if recompute:
                forward = block.forward
                twice = lambda x, f=forward: checkpoint(f, x, use_reentrant=False)  # noqa: E731
                stack.enter_context(mock.patch.object(block, "forward", twice))
        yield


def _difference(
    banked: _Probes, looped: _Probes, batch: tuple[Tensor, Tensor], dtype: torch.dtype, twice: bool
) -> float:
    """Returns the largest distance of a probe's gradients, as a share of their size."""
    tokens, labels = (part[:2] for part in batch)
    ProbeBank(banked.probes, dtype).backward(tokens, labels)
    worst = 0.0
    with _as_vjepa2(looped.probes, twice):
        for ours, theirs in zip(banked.probes, looped.probes, strict=True):
            _single(theirs, (tokens, labels), dtype)
            a, b = (
                torch.cat([w.grad.flatten() for w in probe.parameters() if w.grad is not None])
                for probe in (ours, theirs)
            )
            worst = max(worst, ((a - b).norm() / b.norm()).item())
            ours.zero_grad()
            theirs.zero_grad()
    allowed = 1e-3 if dtype == torch.float32 else 0.05
    if worst > allowed:
        raise SystemExit(f"gradients of bank and loop differ by {worst:.3g}")
    return worst


def _flops(probe: AttentiveProbe, tokens: int) -> int:
    """Returns the multiplications and additions of a clip in a step, as the loop does them.

    Forward and twice that backward, less the gradient of the tokens, which nobody needs.
    """
    dim, blocks = probe.dim, probe.depth - 1
    block = 24 * tokens * dim**2 + 4 * tokens**2 * dim
    cross = 4 * tokens * dim**2 + 20 * dim**2 + 4 * tokens * dim
    return 3 * (blocks * block + cross) - 6 * tokens * dim**2


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _halving_cost() -> dict[str, float]:
    """Returns the probe-epochs of the grid, in full and halved."""
    cost, alive, last = 0, len(GRID_POINTS), 0
    for epoch, kept in sorted(halving_plan(len(GRID_POINTS), GRID.epochs).items()):
        cost, alive, last = cost + alive * (epoch - last), kept, epoch
    cost += alive * (GRID.epochs - last)
    return {"probe_epochs": len(GRID_POINTS) * GRID.epochs, "probe_epochs_halving": cost}


def _sizes(clips: int, batch_size: int) -> list[int]:
    return [batch_size] * (clips // batch_size)


def _arguments() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--tokens", type=int, default=392)
    parser.add_argument("--clips", type=int, default=64, help="in all; a whole number of batches")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--probes", type=int, default=len(GRID_POINTS), help="of the grid's points")
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.clips % arguments.batch_size:
        parser.error("--clips: expected a whole number of batches")
    return arguments


if __name__ == "__main__":
    main()
