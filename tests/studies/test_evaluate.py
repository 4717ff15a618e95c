from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from salt_plugin.config.compare import compare_config, evaluations
from salt_plugin.studies.evaluate import evaluate
from salt_plugin.studies.evaluate import main as evaluate_process


def _arguments(config: Path, product: Path, *encoder: str) -> list[str]:
    (one,) = evaluations(compare_config(str(config))).values()
    keys = [f"bees.{key}={json.dumps(value)}" for key, value in asdict(one).items()]
    return [f"product={product}", "seed=1", *encoder, *keys]


def test_every_evaluation_of_a_frozen_encoder(tiny: Callable[..., Path], tmp_path: Path) -> None:
    found = evaluate("random:vit_nano", 1, evaluations(compare_config(str(tiny()))))
    assert found["bees"].keys() == {"encoder", "clip", "random_weights", "leaks", "linear", "knn"}
    assert 0 <= found["bees"]["knn"]["accuracy"] <= 1
    product = tmp_path / "new" / "probe.json"
    evaluate_process(_arguments(tiny(), product, "encoder=random:vit_nano"))
    assert json.loads(product.read_text()) == found


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (["encoder=nowhere"], "error: .*nowhere"),
        (["random_of={}", "size=vit_nano"], "error: .*no run of vit_nano is finished"),
    ],
)
def test_a_mistake_is_one_line(
    tiny: Callable[..., Path], tmp_path: Path, encoder: list[str], message: str
) -> None:
    product = tmp_path / "probe.json"
    given = [one.format(tmp_path) for one in encoder]
    with pytest.raises(SystemExit, match=message):
        evaluate_process(_arguments(tiny(), product, *given))
    assert not product.exists()
