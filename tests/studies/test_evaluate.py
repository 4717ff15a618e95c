from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from small_run import TINY

from salt_plugin.config import compose
from salt_plugin.config.compare import compare_config, evaluations
from salt_plugin.studies.evaluate import evaluate
from salt_plugin.studies.evaluate import main as evaluate_process
from salt_plugin.train import run as train


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


def test_before_training_is_a_run_of_the_same_size_and_seed(
    tiny: Callable[..., Path], tiny_videos: Path, tmp_path: Path
) -> None:
    still = ["method=vjepa", "seed=1", "optimizer.lr=1e-30", "trainer.max_steps=1"]
    given = [*still, f"input_dir={tiny_videos}", *TINY, "method.model.patch_size=8"]
    train(compose(given), tmp_path / "runs" / "one")
    found = {}
    for name, encoder in (
        ("trained", [f"encoder={tmp_path / 'runs' / 'one'}"]),
        ("before", [f"random_of={tmp_path / 'runs'}", "size=vit_nano"]),
    ):
        evaluate_process(_arguments(tiny(), tmp_path / f"{name}.json", *encoder))
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())["bees"]
    assert found["before"]["random_weights"]
    online = json.loads((tmp_path / "trained-online.json").read_text())["bees"]
    assert online["encoder"].endswith("online.safetensors")
    assert not (tmp_path / "before-online.json").exists()
    for protocol in ("linear", "knn"):
        assert found["before"][protocol]["interval"] == found["trained"][protocol]["interval"]
    other = [one.replace("seed=1", "seed=2") for one in _arguments(tiny(), tmp_path / "a.json")]
    with pytest.raises(SystemExit, match="no run of vit_nano and seed 2"):
        evaluate_process([*other, f"random_of={tmp_path / 'runs'}", "size=vit_nano"])


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (["encoder=nowhere"], "error: .*nowhere"),
        (["random_of={}", "size=vit_nano"], "error: .*no run of vit_nano and seed 1 is finished"),
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
