from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from salt_plugin.checkpoints import export_hf, save_encoder
from salt_plugin.config import ProbeConfig
from salt_plugin.errors import CheckpointError, ConfigError, SaltError
from salt_plugin.evaluation.encoders import FrozenEncoder, open_encoder
from salt_plugin.evaluation.features import first_clip, stored_features
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.models import EncoderShape, VideoEncoder


def test_a_file_is_opened_with_the_normalisation_of_its_card(tmp_path: Path) -> None:
    encoder = VideoEncoder(EncoderShape.named("vit_nano", patch_size=8)).eval()
    file = tmp_path / "student" / "encoder.safetensors"
    save_encoder(encoder, file, {"input": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}})
    clip = torch.randn(1, 3, 4, 16, 16)
    export_hf(tmp_path, tmp_path / "hf")
    for spec in (tmp_path, file, tmp_path / "hf"):
        opened = open_encoder(str(spec))
        torch.testing.assert_close(opened(clip), encoder(clip).detach())
    assert open_encoder(str(file)).mean == [0.1, 0.2, 0.3]
    assert open_encoder(str(file)).std == [1.0, 2.0, 3.0]
    assert open_encoder(f"random:{file}").model.shape == encoder.shape


def test_random_encoders_are_a_function_of_the_seed() -> None:
    prints = {seed: open_encoder("random:vit_nano", seed=seed).fingerprint for seed in (0, 1)}
    assert prints[0] == open_encoder("random:vit_nano", seed=0).fingerprint
    assert prints[0] != prints[1]


def test_a_fingerprint_tells_weights_and_shape_apart_but_not_names() -> None:
    torch.manual_seed(0)
    encoder = VideoEncoder(EncoderShape.named("vit_nano"))
    before = FrozenEncoder("one", encoder).fingerprint
    assert FrozenEncoder("other", encoder).fingerprint == before
    with torch.no_grad():
        encoder.norm.bias[0] += 1e-3
    assert FrozenEncoder("one", encoder).fingerprint != before


def test_an_encoder_stays_in_evaluation_mode_and_has_no_gradient(nano: FrozenEncoder) -> None:
    assert not nano.train().training
    assert not nano(torch.randn(1, 3, 4, 16, 16)).requires_grad


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [
        ("test_vit", 32, 4),  # one prefix token
        ("deit_tiny_distilled_patch16_224", 48, 9),  # two prefix tokens
        ("resnet10t", 64, 4),  # a map, channels first; no size of its own
    ],
)
def test_an_image_model_is_applied_frame_by_frame(name: str, size: int, tokens: int) -> None:
    encoder = open_encoder(f"timm:{name}", size=size, seed=3)
    torch.manual_seed(3)
    given = {} if name == "resnet10t" else {"img_size": size}
    model = timm.create_model(name, num_classes=0, **given).eval()
    clip = torch.randn(2, 3, 4, size, size)
    found = encoder(clip)
    assert found.shape == (2, 2 * tokens, encoder.embed_dim)
    for b in range(2):
        frames = []
        for t in range(4):
            x = model.forward_features(clip[b, :, t][None])[0]
            frames.append(x.flatten(1).T if x.ndim == 3 else x[-tokens:])
        slow = torch.cat([(frames[0] + frames[1]) / 2, (frames[2] + frames[3]) / 2])
        torch.testing.assert_close(found[b], slow, atol=1e-5, rtol=1e-4)
    assert encoder.mean == list(model.pretrained_cfg["mean"])


def test_an_image_model_is_read_from_a_local_file_at_another_size(tmp_path: Path) -> None:
    model = timm.create_model("test_vit")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = open_encoder(f"timm:test_vit:{tmp_path / 'weights.pth'}", size=64)
    found = encoder.model.model.state_dict()["blocks.0.attn.qkv.weight"]
    assert torch.equal(found, model.state_dict()["blocks.0.attn.qkv.weight"])
    assert encoder(torch.randn(1, 3, 2, 64, 64)).shape[1] == 16


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nowhere", CheckpointError, r"nowhere does not exist; expected an encoder file"),
        ("timm:vit_tinny", ConfigError, r"timm has no model of this name"),
        ("timm:test_vit:nowhere.pth", CheckpointError, r"nowhere\.pth: the file does not exist"),
        ("timm:test_vit", ConfigError, r"size=8: timm:test_vit cuts .* of 16 pixels; use 16"),
        ("random:vit_tinny", ConfigError, r"neither a size nor a path; the sizes are vit_nano"),
    ],
)
def test_what_is_no_encoder_is_one_error(spec: str, error: type[SaltError], message: str) -> None:
    with pytest.raises(error, match=message):
        open_encoder(spec, size=8).check_clip(4, 8)


@pytest.mark.parametrize(
    ("frames", "size", "message"),
    [
        (3, 16, r"probe\.frames=3: nano cuts clips into tubelets of 2 frames; use 4"),
        (4, 20, r"probe\.size=20: nano cuts clips into tubelets of 8 pixels; use 16"),
    ],
)
def test_clips_that_do_not_fit_are_named(
    nano: FrozenEncoder, frames: int, size: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        nano.check_clip(frames, size)


@pytest.mark.parametrize("cls_token", [False, True])
def test_the_feature_of_a_clip_is_cls_where_there_is_one(
    small: ProbeConfig, cls_token: bool
) -> None:
    shape = EncoderShape.named("vit_nano", patch_size=8, cls_token=cls_token)
    encoder = FrozenEncoder("nano", VideoEncoder(shape, init_std=0.06))
    assert encoder.tokens(frames=4, size=16) == 8 + cls_token
    stored = stored_features(encoder, read_lists(small), "test", small)
    assert stored.tokens is not None
    tokens_nvnd = stored.tokens[:].float()
    expected = tokens_nvnd[:, :, 0] if cls_token else tokens_nvnd.mean(2)
    torch.testing.assert_close(stored.means, expected, rtol=1e-3, atol=1e-3)
    _, shown_nd = first_clip(encoder, small)
    torch.testing.assert_close(shown_nd, tokens_nvnd[0, 0, int(cls_token) :], rtol=1e-3, atol=1e-3)
