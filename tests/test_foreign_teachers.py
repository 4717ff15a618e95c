"""A frozen teacher may be any encoder: a model of timm, or one that wants other colours."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from small_run import TINY

from salt_plugin.batch import Normalization
from salt_plugin.checkpoints import save_encoder
from salt_plugin.config import compose, load_config
from salt_plugin.errors import ConfigError, SaltError
from salt_plugin.models import EncoderShape, FrozenTeacher, VideoEncoder
from salt_plugin.models.encoder import patchify
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run
from salt_plugin.training.budget import load_teacher
from salt_plugin.training.run_shapes import RunShapes, run_shapes

VIT = "vit_tiny_patch16_224"


def shapes(*overrides: str) -> RunShapes:
    return run_shapes(load_config(compose(["method=salt", *TINY, *overrides])))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a model of timm that was made for 224 pixels."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("timm") / "vit.safetensors"
    save_file(timm.create_model(VIT).state_dict(), file)
    return file


def test_its_tokens_are_those_of_the_frames_normalised_as_it_wants(weights: Path) -> None:
    """Against a plain loop over frames and tubelets, for a student of other patches than its."""
    student = shapes("method.model.patch_size=8", "method.clip.frames=6")
    assert student.grid == (3, 4, 4)
    loaded = load_teacher(f"timm:{VIT}:{weights}", student)
    given = Normalization()
    teacher = FrozenTeacher(loaded.encoder, None, given, loaded.normalization)
    pixels = torch.randint(0, 256, (2, 3, 6, 32, 32), dtype=torch.uint8)
    found = teacher(patchify(given(pixels), 2, 8), student.grid)

    model = timm.create_model(VIT, img_size=64, num_classes=0).eval()
    state = timm.create_model(
        VIT,
        pretrained_cfg_overlay={"file": str(weights)},
        pretrained=True,
        img_size=64,
        num_classes=0,
    ).state_dict()
    model.load_state_dict(state)
    mean, std = (
        torch.tensor(model.pretrained_cfg[name])[:, None, None] for name in ("mean", "std")
    )
    assert mean.flatten().tolist() == [0.5, 0.5, 0.5]  # which ImageNet's are not
    for b in range(2):
        for t in range(3):
            expected = []
            for frame in pixels[b, :, 2 * t : 2 * t + 2].unbind(1):
                frame = (frame / 255 - mean) / std
                frame = F.interpolate(frame[None], (64, 64), mode="bilinear", antialias=True)
                with torch.no_grad():
                    expected.append(model.forward_features(frame)[0, 1:])
            torch.testing.assert_close(
                found[b, 16 * t : 16 * t + 16],
                (expected[0] + expected[1]) / 2,
                atol=2e-4,
                rtol=1e-3,
            )


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_models_of_any_kind_give_the_students_grid(name: str) -> None:
    student = shapes("method.model.patch_size=16", "method.model.tubelet_size=4")
    loaded = load_teacher(f"timm:{name}", student)
    patches = torch.randn(1, 4, 3 * 4 * 16 * 16)
    with torch.no_grad():
        assert loaded.encoder.forward_patches(patches, (1, 2, 2)).shape[:2] == (1, 4)


def test_its_forward_pass_is_priced_by_the_counter() -> None:
    student = shapes("method.clip.frames=8", "method.clip.size=64")
    found = load_teacher(f"timm:{VIT}", student).shape
    # A vision transformer by hand: 16 patches and [cls], a frame each of 8.
    tokens, dim, depth = 17, 192, 12
    blocks = depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim)
    assert found.flops == 8 * 2 * (16 * 3 * 16**2 * dim + blocks)


def test_a_student_learns_from_it_and_its_training_is_unknown_on_the_bill(
    weights: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    given = ["method=salt", *TINY, f"input_dir={tiny_videos}", "trainer.max_steps=2"]
    teacher = f"method.teacher.path='timm:{VIT}:{weights}'"
    monitor = f"method.monitor={{train: {tiny_videos}, test: {tiny_videos}, every: 1}}"
    summary = run(compose([*given, teacher, monitor]), tmp_path / "run")
    parts = summary["bill"]["parts"]
    assert parts["teacher_training"] is None
    assert summary["bill"]["total"] is None
    flops = load_teacher(f"timm:{VIT}", shapes()).shape.flops
    assert parts["teacher_forward"] == 2 * 2 * flops
    rows = read_metrics(tmp_path / "run" / "student" / "metrics.csv")
    assert all(math.isfinite(row["loss"]) and row["monitor_target_rank"] > 1 for row in rows)
    # Under the same seed without a file, the same random teacher.
    one, two = (
        run(compose([*given, f"method.teacher.path=timm:{VIT}"]), tmp_path / name)["stages"]
        for name in ("one", "two")
    )
    assert one[0]["last_loss"] == two[0]["last_loss"]
    with pytest.raises(ConfigError, match=r"compute\.budget=.* covers all .*method\.teacher\.path"):
        run(compose([*given[:-1], teacher, "compute.budget=1e12"]), tmp_path / "budget")


def test_a_teacher_that_saw_other_colours_gets_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VideoEncoder(EncoderShape.named("vit_nano"))
    own = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    save_encoder(encoder, tmp_path / "encoder.safetensors", {"input": own})
    loaded = load_teacher(str(tmp_path / "encoder.safetensors"), shapes())
    given = Normalization()
    teacher = FrozenTeacher(loaded.encoder, None, given, loaded.normalization)
    pixels = torch.randint(0, 256, (1, 3, 4, 32, 32), dtype=torch.uint8)
    expected = encoder.eval()(Normalization(**own)(pixels))
    found = teacher(encoder.patchify(given(pixels)), encoder.grid(given(pixels)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("timm:no_such_model", "timm has no model of this name"),
        (f"timm:{VIT}:/no/such/file.pt", "does not exist"),
        ("timm:salt_vit_tiny", "name its file or run directory"),
    ],
)
def test_a_teacher_that_cannot_be_is_one_clear_error(path: str, message: str) -> None:
    with pytest.raises(SaltError, match=rf"^method\.teacher\.path: .*{message}"):
        load_teacher(path, shapes())
