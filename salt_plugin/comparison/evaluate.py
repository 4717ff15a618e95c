"""All evaluations of one encoder, as a process: `ENCODER SEED FILE EVALUATIONS`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from salt_plugin.config import ProbeConfig, probe_config
from salt_plugin.errors import SaltError
from salt_plugin.evaluation import open_encoder, probe
from salt_plugin.files import write_json


def evaluate(encoder: str, seed: int, evaluations: dict[str, ProbeConfig]) -> dict[str, Any]:
    """Returns what each evaluation finds of a frozen encoder.

    Args:
        encoder: As `salt_plugin.evaluation.open_encoder` takes it.
        seed: Of its weights, where they are random.
        evaluations: By name. Features are not kept where `cache` is null.

    Raises:
        SaltError: The encoder, a list, a key or a video cannot work.
    """
    found = {}
    with TemporaryDirectory(prefix="salt-compare-") as temporary:
        for name, config in evaluations.items():
            frozen = open_encoder(encoder, size=config.size, seed=seed)
            one = replace(config, cache=config.cache or temporary)
            found[name] = probe(frozen, one).as_dict()
    return found


def main(encoder: str, seed: str, product: str, listed: str) -> None:
    """Evaluates, and writes what was found in one piece.

    Args:
        encoder: As for `evaluate`.
        seed: Likewise.
        product: The file.
        listed: The evaluations, as JSON.
    """
    evaluations = {name: probe_config(**keys) for name, keys in json.loads(listed).items()}
    try:
        write_json(Path(product), evaluate(encoder, int(seed), evaluations))
    except SaltError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main(*sys.argv[1:])
