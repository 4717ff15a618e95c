"""What timm's own tests ask of a model, asked of ours on clips [B, 3, T, H, W]."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay

from salt_plugin.errors import ConfigError
from salt_plugin.models import EncoderShape, VideoClassifier, VideoEncoder
from salt_plugin.models.attentive import AttentiveProbe
from salt_plugin.transforms.preprocessing import Preprocessing

D, CLASSES = 128, 5
POOLS = ["avg", "map", "token"]


def clips(frames: int = 4, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, frames, height, width, generator=torch.Generator().manual_seed(0))


def made(pool: str = "avg", **given: object) -> VideoClassifier:
    torch.manual_seed(0)
    name = "salt_vit_nano"
    given = {"num_classes": CLASSES, "pool_depth": 2, "cls_token": pool == "token"} | given
    return timm.create_model(name, global_pool=pool, **given).eval()


@pytest.mark.parametrize("pool", POOLS)
def test_forward_is_features_then_head(pool: str) -> None:
    model = made(pool)
    logits = model(clips())
    assert logits.shape == (2, CLASSES)
    assert logits.isfinite().all()
    tokens = model.forward_features(clips())
    assert tokens.shape == (2, 8 + model.num_prefix_tokens, D)
    torch.testing.assert_close(model.forward_head(tokens), logits)
    features = model.forward_head(tokens, pre_logits=True)
    assert features.shape == (2, model.num_features) == (2, model.head_hidden_size)
    torch.testing.assert_close(model.get_classifier()(features), logits)


def test_pooling_is_the_mean_over_places_cls_or_nothing() -> None:
    model = made("token")
    tokens = model.forward_features(clips())
    pooled = {}
    for pool in ("token", "avg", ""):
        model.reset_classifier(0, pool)
        pooled[pool] = model(clips())
    torch.testing.assert_close(pooled["token"], tokens[:, 0])
    torch.testing.assert_close(pooled["avg"], tokens[:, 1:].mean(1))
    torch.testing.assert_close(pooled[""], tokens)


@pytest.mark.parametrize("pool", POOLS)
def test_backward_gives_every_parameter_a_gradient(pool: str) -> None:
    model = made(pool).train()
    model(clips()).mean().backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None]
    assert not missing
    assert all(value.grad.isfinite().all() for value in model.parameters())


def test_default_cfg_is_true() -> None:
    model = made()
    cfg = model.default_cfg
    assert cfg["architecture"] == "salt_vit_nano"
    assert cfg["input_size"] == (3, 224, 224)
    state = model.state_dict()
    assert cfg["classifier"] + ".weight" in state
    assert cfg["first_conv"] + ".weight" in state


@pytest.mark.parametrize("pool", POOLS)
def test_the_classifier_is_replaced_and_removed(pool: str) -> None:
    model = made(pool)
    model.reset_classifier(7)
    assert model(clips()).shape == (2, 7)
    assert model.num_classes == 7
    model.reset_classifier(0)
    assert model(clips()).shape == (2, D)
    assert not list(model.get_classifier().parameters())
    assert timm.create_model("salt_vit_nano", num_classes=0)(clips()).shape == (2, D)
    unpooled = timm.create_model("salt_vit_nano", num_classes=0, global_pool="")
    assert unpooled(clips()).shape == (2, 8, D)
    model.reset_classifier(3, "map")
    assert model(clips()).shape == (2, 3)
    model.reset_classifier(3, "avg")
    assert not any(name.startswith("attn_pool") for name in model.state_dict())


def test_group_matcher_orders_all_parameters() -> None:
    """Stem, then a layer for each block, the norm with the last, then pooling and classifier."""
    model = made("map")
    layer_of = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(layer_of) == {name for name, _ in model.named_parameters()}
    first, last = 0, len(model.blocks) + 1
    for name, layer in layer_of.items():
        part, _, rest = name.partition(".")
        blocks = {"blocks": 1 + int(rest.split(".")[0])} if part == "blocks" else {}
        ends = {"patch_embed": first, "norm": last - 1, "head": last, "attn_pool": last}
        assert layer == (ends | blocks)[part], name
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    assert {group["lr_scale"] for group in groups} == {0.5**i for i in range(last + 1)}


def test_gradient_checkpointing_changes_nothing() -> None:
    model = made().train()
    plain = model(clips())
    plain.sum().backward()
    gradients = [value.grad.clone() for value in model.parameters()]
    model.zero_grad()
    model.set_grad_checkpointing(True)
    again = model(clips())
    again.sum().backward()
    torch.testing.assert_close(again, plain)
    for value, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(value.grad, gradient)


def test_checkpoint_path_takes_an_encoder_or_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(1)
    encoder = VideoEncoder(EncoderShape.named("vit_nano")).eval()
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    model = made("map", checkpoint_path=tmp_path / "encoder.safetensors")
    torch.testing.assert_close(model.forward_features(clips()), encoder(clips()))
    torch.save(model.state_dict(), tmp_path / "classifier.pth")
    torch.manual_seed(2)
    again = made("map", checkpoint_path=tmp_path / "classifier.pth")
    torch.testing.assert_close(again(clips()), model(clips()))


@pytest.mark.parametrize("cls_token", [False, True])
def test_intermediates_end_in_the_features(cls_token: bool) -> None:
    model = made(cls_token=cls_token)
    features = model.forward_features(clips())
    tokens, found = model.forward_intermediates(clips())
    torch.testing.assert_close(tokens, features)
    assert [one.shape for one in found] == 4 * [(2, D, 2, 2, 2)]
    given = {"norm": True, "output_fmt": "NLC", "intermediates_only": True, "stop_early": True}
    first, last = model.forward_intermediates(
        clips(), [0, -1], return_prefix_tokens=cls_token, **given
    )
    last = torch.cat(last[::-1], dim=1) if cls_token else last
    torch.testing.assert_close(last, features)
    del model.blocks[1:]
    alone = model.forward_features(clips())
    first = torch.cat(first[::-1], dim=1) if cls_token else first
    torch.testing.assert_close(first, alone)
    with pytest.raises(ConfigError, match="output_fmt=NHWC: expected one of NCHW, NLC"):
        model.forward_intermediates(clips(), output_fmt="NHWC")


def test_features_only_has_the_stated_channels_and_reductions(tmp_path: Path) -> None:
    whole = made()
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    given = {"features_only": True, "checkpoint_path": tmp_path / "model.safetensors"}
    for indices, norm in (((0, 2), {}), ((-1,), {"feature_cls": "getter"})):
        path = {} if norm else {"checkpoint_path": given["checkpoint_path"]}
        torch.manual_seed(0)
        model = timm.create_model(
            "salt_vit_nano", features_only=True, out_indices=indices, **path, **norm
        ).eval()
        found = model(clips(4, 48, 32))
        expected = whole.forward_intermediates(
            clips(4, 48, 32), list(indices), intermediates_only=True
        )
        for one, other, channels, reduction in zip(
            found,
            expected,
            model.feature_info.channels(),
            model.feature_info.reduction(),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
            assert one.shape == (2, channels, 2, 48 // reduction, 32 // reduction)
    assert len(timm.create_model("salt_vit_nano", features_only=True).feature_info.channels()) == 3


def test_other_sizes_than_trained() -> None:
    model = made(img_size=(48, 64), num_frames=8)
    assert model(clips(8, 48, 64)).shape == model(clips(2, 16, 16)).shape == (2, CLASSES)
    with pytest.raises(ConfigError, match=r"salt_vit_nano: img_size=100: .* 16 long .* use 96"):
        made(img_size=100)
    with pytest.raises(ConfigError, match=r"num_frames=1: the tubelets are 2 long there; use 2"):
        made(num_frames=1)


def test_weights_of_three_colours_start_a_model_of_one(tmp_path: Path) -> None:
    """As timm does for images: the sum over colours, so that grey clips give the same tokens."""
    whole = made()
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    overlay = {"file": str(tmp_path / "model.safetensors"), "num_classes": CLASSES}
    grey = made(in_chans=1, pretrained=True, pretrained_cfg_overlay=overlay)
    one = clips()[:, :1]
    torch.testing.assert_close(grey(one), whole(one.expand(-1, 3, -1, -1, -1)))


def test_a_classifier_goes_around_an_encoder() -> None:
    encoder = VideoEncoder(EncoderShape.named("vit_nano", patch_size=8)).double().eval()
    encoder.preprocessing = Preprocessing(frames=4, size=32)
    model = VideoClassifier.around(encoder, CLASSES, drop_path=0.1, global_pool="map").eval()
    assert model.preprocessing == encoder.preprocessing
    assert model(clips().double()).dtype == torch.float64
    torch.testing.assert_close(model.forward_features(clips().double()), encoder(clips().double()))


def test_an_attentive_probe_starts_it() -> None:
    """Its pooling and classifier are the probe's: the logits are those on frozen tokens."""
    encoder = VideoEncoder(EncoderShape.named("vit_nano")).eval()
    probe = AttentiveProbe(D, CLASSES, depth=2).eval()
    model = VideoClassifier.around(encoder, CLASSES, global_pool="map", pool_depth=2).eval()
    model.attn_pool.load_state_dict(probe.pooler.state_dict())
    model.head.load_state_dict(probe.linear.state_dict())
    torch.testing.assert_close(model(clips()), probe(encoder(clips())))


def test_what_cannot_be_pooled_is_told() -> None:
    with pytest.raises(ConfigError, match=r"global_pool=max: expected one of '', 'avg'"):
        timm.create_model("salt_vit_nano", global_pool="max")
    with pytest.raises(ConfigError, match=r"global_pool=token: .* no \[cls\] token; use avg"):
        timm.create_model("salt_vit_nano", global_pool="token")
