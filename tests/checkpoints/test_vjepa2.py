from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import vjepa2_state

from salt_plugin import load_encoder
from salt_plugin.checkpoints import load_predictor
from salt_plugin.errors import CheckpointError
from salt_plugin.models import EncoderShape, Predictor, PredictorShape, VideoEncoder

SHAPE = EncoderShape.named("vit_nano", patch_size=8, in_chans=1)


def _encoder(seed: int = 0, shape: EncoderShape = SHAPE) -> VideoEncoder:
    torch.manual_seed(seed)
    return VideoEncoder(shape)


def _predictor(tokens: int = 10, dim: int = 384, heads: int = 12) -> Predictor:
    torch.manual_seed(2)
    shape = PredictorShape(dim, depth=1, num_heads=heads, mlp_ratio=0.5, num_mask_tokens=tokens)
    predictor = Predictor(SHAPE.embed_dim, SHAPE.embed_dim, shape)
    torch.nn.init.normal_(predictor.mask_tokens[0])
    return predictor


def _checkpoint(tokens: int = 10) -> dict[str, Any]:
    """Returns what V-JEPA 2's training saves, with the state of an optimiser."""
    encoder = _encoder()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    encoder(torch.randn(1, 1, 2, 16, 16)).sum().backward()
    optimizer.step()
    return {
        "encoder": vjepa2_state(_encoder(seed=0)),
        "predictor": vjepa2_state(_predictor(tokens)),
        "opt": optimizer.state_dict(),
        "scaler": None,
        "target_encoder": vjepa2_state(_encoder(seed=1)),
        "epoch": 3,
        "loss": 0.5,
    }


def _save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("suffix", ["pt", "pth", "pth.tar"])
def test_the_target_encoder_of_a_checkpoint(tmp_path: Path, suffix: str) -> None:
    file = _save(_checkpoint(), tmp_path / f"vitl.{suffix}")
    encoder = load_encoder(file)
    assert encoder.shape == SHAPE
    assert _same(encoder, _encoder(seed=1))
    assert not encoder.training
    predictor = load_predictor(file)
    assert predictor.shape == PredictorShape(384, 1, 12, 0.5, num_mask_tokens=10)
    assert _same(predictor, _predictor())


def test_the_encoder_where_there_is_no_target(tmp_path: Path) -> None:
    content = _checkpoint()
    del content["target_encoder"]
    assert _same(load_encoder(_save(content, tmp_path / "vitl.pt")), _encoder(seed=0))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_bare_states_in_half_precision(tmp_path: Path, prefix: str) -> None:
    state = {prefix + name: v.half() for name, v in _encoder().state_dict().items()}
    encoder = load_encoder(_save(state, tmp_path / "encoder.pt"))
    assert encoder.norm.weight.dtype == torch.float32
    assert _same(encoder, _encoder().half().float())
    alone = _save({prefix + n: v for n, v in _predictor().state_dict().items()}, tmp_path / "p.pt")
    assert _same(load_predictor(alone), _predictor())


def test_a_file_of_before_torch_1_6_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.pt"
    torch.save(_checkpoint(), file, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"old\.pt cannot be read .*since torch 1\.6"):
        load_encoder(file)


class _Harmful:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_code_in_a_file_is_refused_and_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    file = _save({**_checkpoint(), "opt": _Harmful(trace)}, tmp_path / "vitl.pt")
    for load in (load_encoder, load_predictor):
        with pytest.raises(CheckpointError, match=r"wants to call posix\.mkdir\. It was not run"):
            load(file)
    assert not trace.exists()


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    file = _save(_checkpoint(), tmp_path / "vitl.pt")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        CheckpointError, match=r"vitl\.pt cannot be read as tensors .*Copy it again"
    ):
        load_encoder(file)


@pytest.mark.parametrize(
    ("load", "model", "lost", "bent"),
    [
        (load_encoder, "target_encoder", "blocks.2.attn.proj.bias", "norm.weight"),
        (load_predictor, "predictor", "predictor_blocks.0.norm1.bias", "mask_tokens.1"),
    ],
)
def test_wrong_keys_are_listed(tmp_path: Path, load: Any, model: str, lost: str, bent: str) -> None:
    content = _checkpoint()
    state = content[model]
    del state[f"module.backbone.{lost}"]
    state[f"module.backbone.{bent}"] = torch.zeros(5)
    state["module.backbone.action_encoder.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"vitl\.pt does not hold this") as error:
        load(_save(content, tmp_path / "vitl.pt"))
    assert f"missing ['{lost}']" in str(error.value)
    assert "unexpected ['action_encoder.weight']" in str(error.value)
    assert f"{bent} (5,) instead of" in str(error.value)


def test_a_file_of_something_else_tells_its_keys(tmp_path: Path) -> None:
    file = _save({"state_dict": {"a": torch.zeros(1)}, "step": 3}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"\['state_dict', 'step'\], expected target_encoder"):
        load_encoder(file)
    with pytest.raises(CheckpointError, match=r"\['state_dict', 'step'\], expected predictor"):
        load_predictor(file)
    with pytest.raises(CheckpointError, match=r"a list, not a dictionary"):
        load_encoder(_save([1], file))
    with pytest.raises(CheckpointError, match="not every entry is a tensor"):
        load_encoder(_save({**_encoder().state_dict(), "epoch": 3}, file))
    state = _encoder().state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
    with pytest.raises(CheckpointError, match=r"\(128, 1, 8, 8\), expected 5 dimensions"):
        load_encoder(_save(state, file))
    del state["patch_embed.proj.weight"]
    with pytest.raises(CheckpointError, match=r"missing patch_embed\.proj\.weight"):
        load_encoder(_save(state, file))


def test_a_table_of_positions_is_v_jepa_1s_or_unused_beside_many_mask_tokens(
    tmp_path: Path,
) -> None:
    file = tmp_path / "vitl.pt"
    for tokens in (2, 10):
        content = _checkpoint(tokens)
        content["target_encoder"]["module.backbone.pos_embed"] = torch.zeros(1, 8, 128)
        content["predictor"]["module.backbone.predictor_pos_embed"] = torch.zeros(1, 8, 384)
        _save(content, file)
        if tokens == 2:
            with pytest.raises(CheckpointError, match=r": pos_embed .*V-JEPA 1.*use RoPE.*are 2"):
                load_encoder(file)
            with pytest.raises(CheckpointError, match=r"predictor_pos_embed .*V-JEPA 1"):
                load_predictor(file)
    assert _same(load_encoder(file), _encoder(seed=1))
    assert _same(load_predictor(file), _predictor())
    bare = {**_encoder().state_dict(), "pos_embed": torch.zeros(1, 8, 128)}
    with pytest.raises(CheckpointError, match=r"pos_embed .*V-JEPA 1"):
        load_encoder(_save(bare, file))


def test_heads_that_the_size_does_not_tell_must_be_given(tmp_path: Path) -> None:
    shape = EncoderShape.of(24, 1, 2, 96)
    file = _save(_encoder(shape=shape).state_dict(), tmp_path / "small.pt")
    with pytest.raises(CheckpointError, match=r"width 24 and depth 1 .*1024x24 \(16 heads\)"):
        load_encoder(file)
    assert load_encoder(file, num_heads=2).shape == shape
    with pytest.raises(CheckpointError, match="width 24 over 5 heads"):
        load_encoder(file, num_heads=5)
    head = _save(_predictor(dim=48, heads=4).state_dict(), tmp_path / "predictor.pt")
    with pytest.raises(CheckpointError, match=r"predictor of width 48 .*384 \(12 heads\)"):
        load_predictor(head)
    assert _same(load_predictor(head, num_heads=4), _predictor(dim=48, heads=4))


@pytest.mark.parametrize(("width", "depth", "heads"), [(1408, 40, 22), (1664, 48, None)])
def test_v_jepa_2s_giant_has_narrower_heads_than_ours(
    width: int, depth: int, heads: int | None
) -> None:
    from salt_plugin.checkpoints.vjepa2 import ENCODER_HEADS

    assert ENCODER_HEADS.get((width, depth)) == heads
