"""The last stage of a run: its frozen encoders on a labelled set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.config import ProbeConfig, RunConfig, probe_config
from salt_plugin.config.evaluation import PROTOCOLS
from salt_plugin.data.demo import make_demo
from salt_plugin.data.stream import clip_sampler, demo_spec
from salt_plugin.evaluation.demo import CHANCE, probe_demo
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.leaks import find_leaks
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.protocol import probe
from salt_plugin.evaluation.results import ProbeReport
from salt_plugin.models import VideoEncoder
from salt_plugin.report.accuracies import Bars
from salt_plugin.training.parts import Parts

DEMO = "demo"


def probe_settings(config: RunConfig) -> ProbeConfig | None:
    """Returns how the run's encoders are probed; None where they are not, or as the demo's table.

    Frames, step or rate and size of clips are those of the run, and so are the workers and how long
    they are waited for; all else is the set's. Videos that the lists share are warned of.

    Raises:
        SaltError: There is no such set, or its lists cannot work.
    """
    method = config.method
    if method.probe in (None, DEMO):
        return None
    lists = {"train": method.probe_train, "test": method.probe_test}
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
        workers=config.loader.num_workers,
        stall=method.data.stall,
    )
    find_leaks(read_lists(settings))
    return settings


def probe_run(
    config: RunConfig, parts: Parts, encoders: Mapping[str, VideoEncoder], seen: Sequence[str]
) -> dict[str, Any] | None:
    """Probes encoders by name on the set of `method.probe`.

    Args:
        config: Of the run.
        parts: Of the run.
        encoders: By name.
        seen: The videos that they were trained on, absolute paths.

    Returns:
        The `set`, the `chance` of each column, a row of accuracies for each encoder, and, but for
        the demo's table, `clip` and `leaks` as those of a report, `test_in_pretraining`, the test
        videos that training saw, and the `reports` with intervals and grids; None where the run
        asks for no probe.

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
    reports: dict[str, ProbeReport] = {}
    with Bars() as bars:
        for name, encoder in encoders.items():
            untrained = name == "random" and not config.checkpoint
            frozen = FrozenEncoder(name, encoder, transform.mean, transform.std, untrained)
            reports[name] = probe(frozen, settings, device, bars)
    first = next(iter(reports.values()))
    known = set(map(os.path.realpath, seen))
    test = map(os.path.realpath, read_lists(settings).test.paths)
    return {
        "set": config.method.probe,
        "chance": {protocol: one.chance for protocol, one in first.results.items()},
        "rows": [
            {"encoder": name, **{protocol: one.accuracy for protocol, one in found.results.items()}}
            for name, found in reports.items()
        ],
        "clip": first.clip,
        "leaks": first.leaks,
        "test_in_pretraining": sum(path in known for path in test),
        "reports": {name: found.as_dict() for name, found in reports.items()},
    }
