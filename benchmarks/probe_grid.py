"""Time of a step of a grid of attentive probes.

python benchmarks/probe_grid.py [--device cuda] [--dim 1024] [--tokens 1568] [--probes 20]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.models.attentive import AttentiveProbe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dim", type=int, default=1024, help="width of the encoder")
    parser.add_argument("--tokens", type=int, default=1568, help="of a clip")
    parser.add_argument("--clips", type=int, default=16, help="of a step")
    parser.add_argument("--probes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    torch.manual_seed(0)
    heads = max(1, given.dim // 64)
    probes = [AttentiveProbe(given.dim, 174, num_heads=heads) for _ in range(given.probes)]
    for probe in probes:
        probe.to(given.device)
    bank = ProbeBank(probes, torch.bfloat16)
    tokens = torch.randn(given.clips, given.tokens, given.dim, device=given.device)
    labels = torch.arange(given.clips, device=given.device) % 174
    seconds = []
    for _ in range(given.rounds + 1):
        began = time.perf_counter()
        bank.backward(tokens, labels).tolist()  # waits for a GPU
        seconds.append(time.perf_counter() - began)
    step = statistics.median(seconds[1:])
    print(
        f"{given.probes} probes, {given.clips} clips of {given.tokens} tokens: {step:.4f} s a step"
    )
    print(f"{given.probes * given.clips / step:.1f} clips x probes a second")


if __name__ == "__main__":
    main()
