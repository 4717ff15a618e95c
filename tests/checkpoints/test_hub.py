"""Encoders for timm, the hub and plain torch, against local folders; nothing is sent anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.hub_mixin
import pytest
import timm
import torch
from foreign import hf_folder
from huggingface_hub import ModelCard

from salt_plugin import load_encoder
from salt_plugin.checkpoints import load_predictor, read_card, save_encoder, save_predictor
from salt_plugin.commands.export import main
from salt_plugin.errors import CheckpointError
from salt_plugin.models import (
    EncoderShape,
    Predictor,
    PredictorShape,
    VideoClassifier,
    VideoEncoder,
)

INPUT = {"frames": 4, "size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
BILL = {"bill": {"parts": {"student": 2e12, "predictor": 1e12}, "total": 3e12}}
CARD = {"method": "salt", "stage": "student", "input": INPUT, "compute": BILL}
PROBE = {"set": "ssv2", "rows": [{"encoder": "student", "knn": 0.25, "attentive": 0.5}]}
SHAPES = [
    EncoderShape.named("vit_nano", patch_size=8),
    EncoderShape.named("vit_nano", tubelet_size=1, cls_token=True, block_causal=True),
]


def run_directory(folder: Path, shape: EncoderShape = SHAPES[0]) -> Path:
    torch.manual_seed(0)
    encoder = VideoEncoder(shape)
    predictor = Predictor(shape.embed_dim, 48, PredictorShape(24, depth=1, num_heads=2))
    save_predictor(predictor, encoder, folder / "student" / "predictor.safetensors")
    save_encoder(encoder, folder / "student" / "encoder.safetensors", CARD)
    (folder / "summary.json").write_text(json.dumps({"probe": PROBE}))
    return folder


def clips() -> torch.Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES, ids=["rope", "cls"])
@torch.no_grad()
def test_timm_takes_what_is_exported_for_it(
    shape: EncoderShape, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run_directory(tmp_path / "run", shape)
    main([str(source), "--format", "timm"])
    assert (
        f'timm.create_model("local-dir:{source}/timm", pretrained=True' in capsys.readouterr().out
    )
    encoder, folder = VideoEncoder.from_pretrained(source), source / "timm"
    expected = encoder(clips())
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(model.forward_features(clips()), expected)
    assert model.pretrained_cfg["mean"] == INPUT["mean"]
    tuned = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7).eval()
    assert torch.equal(tuned.forward_features(clips()), expected)
    assert tuned(clips()).shape == (2, 7)
    arguments = json.loads((folder / "config.json").read_text())["model_args"]
    file = folder / "model.safetensors"
    by_name = timm.create_model("salt_vit_nano", checkpoint_path=file, **arguments).eval()
    assert torch.equal(by_name.forward_features(clips()), expected)
    assert torch.equal(load_encoder(folder)(clips()), expected)


def test_plain_torch_reads_the_state_dicts(tmp_path: Path) -> None:
    source = run_directory(tmp_path / "run")
    main([str(source), "--format", "torch"])
    file = source / "torch" / "encoder.pt"
    state = torch.load(file, weights_only=True)
    encoder = VideoEncoder(SHAPES[0])
    encoder.load_state_dict(state["target_encoder"])
    assert torch.equal(encoder(clips()), load_encoder(source)(clips()))
    assert torch.equal(load_encoder(file)(clips()), encoder(clips()))
    predictor = load_predictor(file, num_heads=2).state_dict()
    assert all(torch.equal(predictor[name], value) for name, value in state["predictor"].items())
    with pytest.raises(CheckpointError, match=r"torch is not empty; .*--force"):
        main([str(source), "--format", "torch"])


def test_each_layout_says_what_it_cannot_hold(tmp_path: Path) -> None:
    with_cls = run_directory(tmp_path / "cls", SHAPES[1])
    with pytest.raises(CheckpointError, match=r"\[cls\] token or block-causal .* timm or torch"):
        main([str(with_cls), "--format", "hf"])
    odd = run_directory(tmp_path / "odd", EncoderShape("custom", 24, 1, 2))
    with pytest.raises(
        CheckpointError, match=r"width 24, 1 blocks and 2 heads has no name in timm"
    ):
        main([str(odd), "--format", "timm"])
    classifier = VideoClassifier(SHAPES[0], num_classes=3)
    with pytest.raises(CheckpointError, match="without a classifier"):
        classifier.save_pretrained(tmp_path / "classifier")


@torch.no_grad()
def test_a_folder_keeps_the_encoder_its_card_and_a_model_card(tmp_path: Path) -> None:
    encoder = VideoEncoder.from_pretrained(run_directory(tmp_path / "run"))
    about = {"license": "cc-by-4.0", "data": "Kinetics-710"}
    encoder.save_pretrained(tmp_path / "kept", model_card_kwargs=about)
    again = VideoEncoder.from_pretrained(tmp_path / "kept")
    assert torch.equal(again(clips()), encoder(clips()))
    assert again.card == encoder.card == read_card(tmp_path / "kept" / "model.safetensors")
    page = ModelCard.load(tmp_path / "kept" / "README.md")
    assert (page.data.license, page.data.library_name) == ("cc-by-4.0", "salt_plugin")
    for row in (
        "Method | salt, student",
        "Data | Kinetics-710",
        "FLOPs: predictor | 1e+12",
        "FLOPs in all (1 multiply-add = 2) | 3e+12",
        "Frozen, knn on ssv2 | 0.250",
        "Clips: frames | 4",
        "Clips: mean | [0.5, 0.4, 0.3]",
    ):
        assert f"| {row} |" in page.text
    classifier = VideoClassifier.from_pretrained(tmp_path / "kept", num_classes=3)
    assert torch.equal(classifier.forward_features(clips()), encoder(clips()))
    again.norm.bias += 1
    again.save_pretrained(tmp_path / "changed")
    changed = VideoEncoder.from_pretrained(tmp_path / "changed")
    assert set(changed.card) == {"format", "shape", "fingerprint", "input"}
    assert "not counted" in (tmp_path / "changed" / "README.md").read_text()


def test_the_hub_gets_that_folder_and_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, repo_id: str, **_: object) -> object:
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path: Path, repo_id: str, **_: object) -> str:
            (hub / repo_id).parent.mkdir(parents=True)
            Path(folder_path).rename(hub / repo_id)
            return repo_id

    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Api)
    monkeypatch.setattr(
        "salt_plugin.models.hub.snapshot_download", lambda name, **given: str(hub / name)
    )
    encoder = VideoEncoder.from_pretrained(run_directory(tmp_path / "run"))
    encoder.push_to_hub("someone/encoder", model_card_kwargs={"license": "mit"})
    assert "license: mit" in (hub / "someone" / "encoder" / "README.md").read_text()
    again = VideoEncoder.from_pretrained("someone/encoder")
    assert torch.equal(again(clips()), encoder(clips()))
    hf_folder(hub / "someone" / "vjepa2")
    assert isinstance(VideoEncoder.from_pretrained("someone/vjepa2"), VideoEncoder)


def test_what_is_nowhere_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path / "none"), "someone/none"):
        with pytest.raises(CheckpointError, match=rf"{name} is no path here, and the hub did not"):
            VideoEncoder.from_pretrained(name, local_files_only=True, cache_dir=tmp_path)
