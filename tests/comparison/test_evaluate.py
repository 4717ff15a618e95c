from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from salt_plugin.comparison.evaluate import evaluate
from salt_plugin.comparison.evaluate import main as evaluate_process
from salt_plugin.config.compare import compare_config, evaluations


def test_every_evaluation_of_a_frozen_encoder(tiny: Callable[..., Path], tmp_path: Path) -> None:
    found = evaluate("random:vit_nano", 1, evaluations(compare_config(str(tiny()))))
    assert found["bees"].keys() == {"clip", "random_weights", "leaks", "linear", "knn"}
    assert 0 <= found["bees"]["knn"]["accuracy"] <= 1
    listed = {name: asdict(one) for name, one in evaluations(compare_config(str(tiny()))).items()}
    product = tmp_path / "probe.json"
    evaluate_process("random:vit_nano", "1", str(product), json.dumps(listed))
    assert json.loads(product.read_text()) == found


def test_a_mistake_is_one_line(tiny: Callable[..., Path], tmp_path: Path) -> None:
    listed = {name: asdict(one) for name, one in evaluations(compare_config(str(tiny()))).items()}
    with pytest.raises(SystemExit, match=r"error: .*nowhere"):
        evaluate_process("nowhere", "1", str(tmp_path / "probe.json"), json.dumps(listed))
    assert not (tmp_path / "probe.json").exists()
