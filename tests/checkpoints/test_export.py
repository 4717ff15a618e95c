from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign import hf_folder, vjepa2_state
from transformers import AutoVideoProcessor, VJEPA2Config, VJEPA2Model

from salt_plugin import load_encoder
from salt_plugin.checkpoints import (
    export_hf,
    load_predictor,
    read_card,
    read_predictor_card,
    save_encoder,
    save_predictor,
)
from salt_plugin.commands.export import main
from salt_plugin.config import compose
from salt_plugin.errors import CheckpointError
from salt_plugin.models import EncoderShape, Predictor, PredictorShape, VideoEncoder
from salt_plugin.train import run

INPUT = {"frames": 6, "size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
SHAPES = [
    EncoderShape.named("vit_nano", patch_size=8),
    EncoderShape("custom", 44, 2, 2, mlp_ratio=48 / 11, patch_size=4, tubelet_size=1, in_chans=1),
    EncoderShape("custom", 30, 1, 5, mlp_ratio=1.7, patch_size=16, tubelet_size=4),
]
PREDICTOR = PredictorShape(24, depth=2, num_heads=2, mlp_ratio=2.5, num_mask_tokens=2)


def _run_directory(folder: Path, shape: EncoderShape, out_dim: int | None = None) -> Path:
    torch.manual_seed(0)
    encoder = VideoEncoder(shape)
    predictor = Predictor(shape.embed_dim, out_dim or shape.embed_dim, PREDICTOR)
    for value in [*encoder.parameters(), *predictor.parameters()]:
        value.data += 0.1 * torch.randn_like(value)
    save_predictor(predictor, encoder, folder / "student" / "predictor.safetensors")
    save_encoder(encoder, folder / "student" / "encoder.safetensors", {"input": INPUT})
    save_encoder(VideoEncoder(shape), folder / "teacher" / "encoder.safetensors", {})
    return folder


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape.embed_dim))
@torch.no_grad()
def test_export_then_import_is_the_identity_and_transformers_agrees(
    tmp_path: Path, shape: EncoderShape
) -> None:
    source = _run_directory(tmp_path / "run", shape)
    export_hf(source, tmp_path / "hf")
    encoder, predictor = load_encoder(source), load_predictor(source)
    assert _same(load_encoder(tmp_path / "hf"), encoder)
    assert _same(load_predictor(tmp_path / "hf"), predictor)
    assert load_encoder(tmp_path / "hf").shape == shape
    assert load_predictor(tmp_path / "hf").shape == PREDICTOR

    model, report = VJEPA2Model.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(report.values())
    t = 8 if shape.tubelet_size == 4 else 6
    clips = torch.randn(2, shape.in_chans, t, 32, 32)
    order = torch.stack([torch.randperm(encoder(clips).shape[1]) for _ in clips])
    context, target = order[:, :3], order[:, 3:]
    theirs = model(clips.transpose(1, 2), context_mask=[context], target_mask=[target])
    tokens = encoder(clips)
    assert (theirs.last_hidden_state - tokens).abs().max() < 1e-4
    seen = tokens.gather(1, context[..., None].expand(-1, -1, shape.embed_dim))
    ours = predictor(seen, context, target, encoder.grid(clips), mask_index=1)
    assert (theirs.predictor_output.last_hidden_state - ours).abs().max() < 1e-4


def test_the_folder_holds_what_transformers_needs(tmp_path: Path) -> None:
    done = export_hf(_run_directory(tmp_path / "run", SHAPES[0]), tmp_path / "run" / "hf")
    assert sorted(path.name for path in done.files) == sorted(os.listdir(tmp_path / "run" / "hf"))
    config = json.loads((tmp_path / "run" / "hf" / "config.json").read_text())
    assert (config["crop_size"], config["frames_per_clip"]) == (32, 6)
    assert (config["model_type"], config["architectures"]) == ("vjepa2", ["VJEPA2Model"])
    assert VJEPA2Config.from_pretrained(tmp_path / "run" / "hf").pred_num_mask_tokens == 2
    processor = AutoVideoProcessor.from_pretrained(tmp_path / "run" / "hf")
    assert type(processor).__name__ == "VJEPA2VideoProcessor"
    video = np.full((6, 48, 64, 3), 255, dtype=np.uint8)
    pixels = processor(video, return_tensors="pt")["pixel_values_videos"]
    assert pixels.shape == (1, 6, 3, 32, 32)
    expected = (1 - torch.tensor(INPUT["mean"])) / torch.tensor(INPUT["std"])
    assert torch.allclose(pixels[0, 0, :, 0, 0], expected, atol=1e-5)


def test_a_predictor_for_another_width_stays_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _run_directory(tmp_path / "run", SHAPES[0], out_dim=192)
    main([str(source), "--format", "hf"])
    printed = capsys.readouterr().out
    assert "The encoder alone: the predictor projects to the teacher's width 192" in printed
    assert "skip_predictor=True" in printed
    assert f"from_pretrained('{source / 'hf'}')" in printed
    assert _same(load_encoder(source / "hf"), load_encoder(source))
    with pytest.raises(
        CheckpointError, match=r"does not hold this predictor: missing \['predictor"
    ):
        load_predictor(source / "hf")
    model, report = VJEPA2Model.from_pretrained(source / "hf", output_loading_info=True)
    assert all(name.startswith("predictor.") for name in report["missing_keys"])
    assert not report["unexpected_keys"]
    clips = torch.randn(1, 3, 6, 32, 32)
    with torch.no_grad():
        theirs = model(clips.transpose(1, 2), skip_predictor=True).last_hidden_state
        assert (theirs - load_encoder(source)(clips)).abs().max() < 1e-4


def test_the_teacher_and_a_file_can_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _run_directory(tmp_path / "run", SHAPES[0])
    main([str(source), "--format", "hf", "--stage", "teacher", "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "teacher/encoder.safetensors has no predictor with it" in printed
    assert "crop_size=256 was written" in printed
    assert not (tmp_path / "out" / "video_preprocessor_config.json").exists()
    assert _same(load_encoder(tmp_path / "out"), load_encoder(source / "teacher"))
    file = source / "student" / "encoder.safetensors"
    main([str(file), "--format", "hf"])
    assert _same(load_encoder(source / "student" / "encoder-hf"), load_encoder(source))
    with pytest.raises(SystemExit) as stop:
        main([str(file), "--format", "hf", "--stage", "teacher"])
    assert stop.value.code == 2


def test_v_jepa_2s_own_weights_can_be_exported(tmp_path: Path) -> None:
    shape = SHAPES[0]
    torch.manual_seed(0)
    encoder = VideoEncoder(shape)
    predictor = Predictor(128, 128, PredictorShape(384, 1, 12, 0.5, num_mask_tokens=10))
    content = {"target_encoder": vjepa2_state(encoder), "predictor": vjepa2_state(predictor)}
    torch.save(content, tmp_path / "vitn.pth.tar")
    main([str(tmp_path / "vitn.pth.tar"), "--format", "hf"])
    assert _same(load_encoder(tmp_path / "vitn-hf"), encoder)
    assert _same(load_predictor(tmp_path / "vitn-hf"), predictor)
    again = export_hf(tmp_path / "vitn-hf", tmp_path / "again")
    assert again.encoder_only is None
    assert _same(load_predictor(tmp_path / "again"), predictor)


def test_a_folder_with_something_in_it_is_refused_unless_forced(tmp_path: Path) -> None:
    source = _run_directory(tmp_path / "run", SHAPES[0])
    export_hf(source, tmp_path / "hf")
    before = (tmp_path / "hf" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"hf is not empty; .*--output.*--force"):
        export_hf(source, tmp_path / "hf", order=("teacher",))
    assert (tmp_path / "hf" / "model.safetensors").read_bytes() == before
    export_hf(source, tmp_path / "hf", order=("teacher",), force=True)
    assert _same(load_encoder(tmp_path / "hf"), load_encoder(source / "teacher"))
    assert sorted(os.listdir(tmp_path / "hf")) == ["config.json", "model.safetensors"]
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a file"):
        export_hf(source, tmp_path / "hf" / "model.safetensors", force=True)
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        export_hf(tmp_path / "nowhere", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_predictor_of_another_run_is_refused(tmp_path: Path) -> None:
    source = _run_directory(tmp_path / "run", SHAPES[0])
    save_encoder(VideoEncoder(SHAPES[0]), source / "student" / "encoder.safetensors", {})
    with pytest.raises(CheckpointError, match=r"predictor\.safetensors belongs to another encoder"):
        export_hf(source, tmp_path / "hf")


def test_predictor_files_are_checked_as_encoder_files_are(tmp_path: Path) -> None:
    source = _run_directory(tmp_path / "run", SHAPES[0])
    file = source / "student" / "predictor.safetensors"
    assert _same(load_predictor(file), load_predictor(source))
    assert _same(load_predictor(source / "student"), load_predictor(source))
    with pytest.raises(CheckpointError, match="holds no finished predictor"):
        load_predictor(source / "teacher")
    with pytest.raises(CheckpointError, match="is no predictor card"):
        load_predictor(source / "student" / "encoder.safetensors")
    with pytest.raises(CheckpointError, match="is no encoder card"):
        load_encoder(file)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"fingerprint in predictor\.json"):
        load_predictor(source)


def test_a_trained_run_is_exported_and_a_foreign_teacher_trains(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = [
        f"input_dir={tiny_videos}",
        "method.encoder=vit_nano",
        "method.clip.size=32",
        "method.clip.frames=4",
        "method.clip.step=1",
        "method.model.patch_size=8",
        "method.model.predictor.dim=24",
        "method.model.predictor.depth=1",
        "method.model.predictor.num_heads=2",
        "method.teacher.max_steps=1",
        "trainer.max_steps=1",
        "trainer.precision=32",
        "loader.batch_size=2",
        "loader.num_workers=0",
    ]
    run(compose(["method=salt", *common]), tmp_path / "run")
    card = read_predictor_card(tmp_path / "run" / "student" / "predictor.safetensors")
    encoder_card = read_card(tmp_path / "run" / "student" / "encoder.safetensors")
    assert card["encoder_fingerprint"] == encoder_card["fingerprint"]
    assert (card["kind"], card["context_dim"], card["out_dim"]) == ("predictor", 128, 128)
    assert not (tmp_path / "run" / "teacher" / "predictor.safetensors").exists()

    monkeypatch.chdir(tmp_path)
    main(["run", "--format", "hf"])
    written = "run/hf/model.safetensors: encoder vit_nano and predictor"
    assert written in capsys.readouterr().out
    model = VJEPA2Model.from_pretrained(tmp_path / "run" / "hf")
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        theirs = model(clips.transpose(1, 2), skip_predictor=True).last_hidden_state
        assert (theirs - load_encoder(tmp_path / "run")(clips)).abs().max() < 1e-4

    hf_folder(tmp_path / "foreign")
    start = ["checkpoint=" + str(tmp_path / "run" / "hf")]
    teacher = f"method.teacher.path={tmp_path / 'foreign'}"
    run(compose(["method=salt", *common, teacher, *start]), tmp_path / "second")
    card = read_predictor_card(tmp_path / "second" / "student" / "predictor.safetensors")
    assert card["out_dim"] == 48
    done = export_hf(tmp_path / "second", tmp_path / "second" / "hf")
    assert done.encoder_only is not None
    with pytest.raises(CheckpointError, match=r"patch_size=8, the student 16"):
        run(
            compose(["method=salt", *common, teacher, "method.model.patch_size=16"]),
            tmp_path / "third",
        )


def test_an_initial_checkpoint_of_another_size_is_refused(
    tiny_videos: Path, tmp_path: Path
) -> None:
    hf_folder(tmp_path / "foreign", patch_size=16, crop_size=224)
    names = [f"input_dir={tiny_videos}", f"checkpoint={tmp_path / 'foreign'}"]
    cfg = compose(["method=pixel_teacher", "method.encoder=vit_nano", *names])
    with pytest.raises(CheckpointError, match=r"name=custom instead of vit_nano"):
        run(cfg, tmp_path / "run")
