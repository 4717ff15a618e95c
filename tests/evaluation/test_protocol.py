from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from salt_plugin.config import ProbeConfig
from salt_plugin.errors import ConfigError
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.probes import linear_predictions
from salt_plugin.evaluation.protocol import probe
from salt_plugin.models import EncoderShape, VideoEncoder
from tests.checkpoints.foreign import hf_folder, vjepa2_state


def test_all_protocols_find_what_is_plain_to_see(nano: FrozenEncoder, small: ProbeConfig) -> None:
    titles = set()
    report = probe(
        nano,
        replace(small, epochs=10, segments=2),
        progress=lambda title, done, total: titles.add(title),
    )
    protocols = {"attentive", "linear", "knn", "linear_attention", "knn_attention"}
    assert report.results.keys() == protocols
    for result in report.results.values():
        assert result.accuracy == 1.0
        assert result.interval == (1.0, 1.0)
        assert (result.chance, result.n_test) == (pytest.approx(1 / 3), 6)
        assert torch.equal(result.predicted_n, report.labels_n)
    assert titles == {"features, train", "features, test", "attentive probes"}
    assert report.probe is not None
    assert not report.probe.training


def test_the_report_is_json_with_the_whole_grid(nano: FrozenEncoder, small: ProbeConfig) -> None:
    found = probe(nano, replace(small, grid="full", epochs=1)).as_dict()
    assert json.loads(json.dumps(found)) == found
    attentive = found["attentive"]
    assert len(attentive["grid"]) == 20
    assert attentive["best"] in attentive["grid"]
    assert attentive["best"]["accuracy"] == max(p["accuracy"] for p in attentive["grid"])
    assert attentive["chosen_on"] == "test"
    assert "grid" not in found["linear"]


def test_a_probe_is_chosen_on_the_held_out_list(
    nano: FrozenEncoder, small: ProbeConfig, tmp_path: Path
) -> None:
    lists = read_lists(small)
    wrong = (lists.test.labels_n + 1) % 3
    rows = [f"{path} {at}\n" for path, at in zip(lists.test.paths, wrong, strict=True)]
    (tmp_path / "wrong.csv").write_text("".join(rows))
    config = replace(small, grid="full", epochs=1, protocols=["attentive"])
    held_out = probe(nano, replace(config, val=str(tmp_path / "wrong.csv"))).results["attentive"]
    assert held_out.chosen_on == "val"
    assert held_out.best is not None
    point = held_out.grid[held_out.best]
    assert point.accuracy == max(one.accuracy or 0 for one in held_out.grid)
    assert point.accuracy == (held_out.predicted_n == wrong).double().mean()


def test_the_fast_protocol_is_one_probe(nano: FrozenEncoder, small: ProbeConfig) -> None:
    (point,) = probe(nano, replace(small, protocols=["attentive"])).results["attentive"].grid
    assert (point.learning_rate, point.weight_decay) == (1e-3, 0.01)  # paper, section 6


def test_controls_take_away_what_they_say(nano: FrozenEncoder, small: ProbeConfig) -> None:
    controls = ["shuffled", "frozen", "permuted", "metadata"]
    report = probe(nano, replace(small, protocols=["linear"], controls=controls))
    assert list(report.controls) == controls
    # Colour needs no motion, so only permuted labels bring it down.
    for name in ("shuffled", "frozen"):
        assert report.controls[name]["linear"].accuracy == 1.0
    assert report.controls["permuted"]["linear"].accuracy < 1.0
    assert report.controls["metadata"].keys() == {"metadata"}
    assert json.dumps(report.as_dict())


def test_a_report_is_a_function_of_the_seed(nano: FrozenEncoder, small: ProbeConfig) -> None:
    first, second = (probe(nano, small).as_dict() for _ in range(2))
    assert first == second


def test_linear_probes_average_the_softmax_over_views() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(30, 5)), rng.normal(size=(8, 4, 5))
    labels = np.arange(30) % 3
    scaler = StandardScaler().fit(train)
    # torch divides by n - 1 where scikit-learn divides by n.
    scaler.scale_ *= (30 / 29) ** 0.5
    model = LogisticRegression(C=1.0, max_iter=2000).fit(scaler.transform(train), labels)
    slow = [model.predict_proba(scaler.transform(views)).mean(0).argmax() for views in test]
    found = linear_predictions(torch.tensor(train), torch.from_numpy(labels), torch.tensor(test))
    assert found.tolist() == slow


@pytest.mark.parametrize("layout", ["repository", "huggingface"])
def test_a_v_jepa_2_checkpoint_is_probed(small: ProbeConfig, tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model"
    if layout == "huggingface":
        hf_folder(path)
    else:
        torch.manual_seed(0)
        encoder = VideoEncoder(EncoderShape.named("vit_tiny", patch_size=8))
        path = tmp_path / "model.pt"
        torch.save({"target_encoder": vjepa2_state(encoder)}, path)
    report = probe(str(path), replace(small, epochs=1))
    assert report.encoder == str(path)
    assert report.results["attentive"].n_test == 6


def test_clips_that_do_not_fit_the_encoder_are_found_first(
    nano: FrozenEncoder, small: ProbeConfig
) -> None:
    with pytest.raises(ConfigError, match=r"probe\.frames=5: nano cuts clips .* use 4"):
        probe(nano, replace(small, frames=5))
    assert not Path(str(small.cache)).exists()


def test_real_videos(shared_videos: Path, nano: FrozenEncoder, small: ProbeConfig) -> None:
    folder = shared_videos / "ut_interaction"
    lists = {"train": str(folder / "train.csv"), "test": str(folder / "test.csv")}
    config = replace(small, **lists, protocols=["knn"], controls=["metadata"])
    assert len(read_lists(config).classes) == 6
    report = probe(nano, config)
    assert report.results["knn"].n_test == 37
    # Half of it can be told without looking.
    assert 0.4 < report.controls["metadata"]["metadata"].accuracy < 0.8
