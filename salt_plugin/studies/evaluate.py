"""All evaluations of one encoder of a comparison, as a process; its arguments are `key=value`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from salt_plugin.config import ProbeConfig, probe_config, registry
from salt_plugin.errors import DataError, SaltError
from salt_plugin.evaluation import open_encoder, probe
from salt_plugin.files import write_json
from salt_plugin.run_directory import RunDirectory
from salt_plugin.stage_directory import KINDS


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


def main(arguments: Sequence[str]) -> None:
    """Evaluates, and writes what was found in one piece.

    Args:
        arguments: `product=FILE` (what is found of a run's other encoder goes to `FILE-KIND`),
            `seed=N`, then `encoder=RUN`, or `random_of=FOLDER size=NAME` for the encoder before
            training of a finished run in the folder, of this seed; and `EVALUATION.KEY=JSON`.
    """
    given = dict(one.split("=", 1) for one in arguments)
    keys: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        evaluation, dot, key = name.rpartition(".")
        if dot:
            keys.setdefault(evaluation, {})[key] = json.loads(value)
    product = Path(given["product"])
    try:
        encoder = given.get("encoder") or _random(
            Path(given["random_of"]), given["size"], int(given["seed"])
        )
        evaluations = {name: probe_config(**one) for name, one in keys.items()}
        encoders = {product: encoder}
        if "encoder" in given:
            encoders = _others(RunDirectory(Path(encoder)), product) | encoders
        found = {
            file: evaluate(one, int(given["seed"]), evaluations) for file, one in encoders.items()
        }
    except SaltError as error:
        raise SystemExit(f"error: {error}") from None
    product.parent.mkdir(exist_ok=True)
    for file, one in found.items():  # the product itself last
        write_json(file, one)


def _others(run: RunDirectory, product: Path) -> dict[Path, str]:
    """Returns the encoders beside the result of a run, by where what is found of them goes."""
    files = {kind: run.result.other(kind) for kind in KINDS} if run.finished else {}
    return {
        product.with_stem(f"{product.stem}-{kind}"): str(file)
        for kind, file in files.items()
        if file.is_file()
    }


def _random(folder: Path, size: str, seed: int) -> str:
    """Returns the encoder before training of the first method, in the order of the registry."""
    found: dict[str, str] = {}
    for run in map(RunDirectory, sorted(folder.iterdir())):
        config = run.stored_config() if run.finished else {}
        if config and (config["method"]["encoder"], config["seed"]) == (size, seed):
            found.setdefault(config["method"]["name"], f"random:{run.result.encoder}")
    for name in registry.METHODS:
        if name in found:
            return found[name]
    raise DataError(
        f"{folder}: no run of {size} and seed {seed} is finished: its weights before training are "
        "not known"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
