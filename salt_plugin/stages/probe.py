"""The last stage of a run: its frozen encoders on a labelled set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt_plugin.config import ProbeConfig, RunConfig, probe_config
from salt_plugin.config.probe import PROTOCOLS
from salt_plugin.data.demo import make_demo
from salt_plugin.data.stream import clip_sampler, demo_spec
from salt_plugin.evaluation.demo import CHANCE, probe_demo
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.protocol import probe
from salt_plugin.models import VideoEncoder
from salt_plugin.report.probe import Bars
from salt_plugin.stages.parts import Parts

DEMO = "demo"


def probe_settings(config: RunConfig) -> ProbeConfig | None:
    """Returns how the run's encoders are probed; None where they are not, or as the demo's table.

    Frames, step or rate and size of clips are those of the run, all else is the set's.

    Raises:
        SaltError: There is no such set, or its lists cannot work.
    """
    method = config.method
    if method.probe in (None, DEMO):
        return None
    lists = {"train": method.probe_train, "test": method.probe_test, "root": method.data.root}
    protocol = method.probe_protocol
    settings = probe_config(
        method.probe,
        **{key: given for key, given in lists.items() if given is not None},
        frames=method.clip.frames,
        size=method.clip.size,
        step=method.clip.step,
        fps=method.clip.fps,
        protocols=list(PROTOCOLS) if protocol == "all" else [protocol],
        seed=config.seed % 2**32,
    )
    read_lists(settings)
    return settings


def probe_run(
    config: RunConfig, parts: Parts, encoders: Mapping[str, VideoEncoder]
) -> dict[str, Any] | None:
    """Probes encoders by name on the set of `method.probe`.

    Returns:
        The `set`, the `chance` of each column, a row of accuracies for each encoder, and the
        `reports` with intervals and grids; None where the run asks for no probe.

    Raises:
        SaltError: As `salt_plugin.evaluation.protocol.probe`.
    """
    if config.method.probe == DEMO:
        folder: Path = make_demo(demo_spec(config))
        size = config.method.clip.size
        rows = probe_demo(encoders, folder, clip_sampler(config), size, config.seed)
        return {"set": DEMO, "chance": CHANCE, "rows": rows}
    settings = probe_settings(config)
    if settings is None:
        return None
    transform = parts.transform
    device = "cpu" if config.trainer.gpus == 0 else None
    reports = {}
    with Bars() as bars:
        for name, encoder in encoders.items():
            frozen = FrozenEncoder.of(name, encoder, transform.mean, transform.std)
            reports[name] = probe(frozen, settings, device, bars).as_dict()
    first = next(iter(reports.values()))
    return {
        "set": config.method.probe,
        "chance": {protocol: one["chance"] for protocol, one in first.items()},
        "rows": [
            {"encoder": name, **{protocol: one["accuracy"] for protocol, one in found.items()}}
            for name, found in reports.items()
        ],
        "reports": reports,
    }
