from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import SIZES, hf_encode, hf_folder, hf_places
from safetensors.torch import load_file, save_file

from salt_plugin import load_encoder
from salt_plugin.checkpoints import load_predictor
from salt_plugin.checkpoints.hf_config import make_config
from salt_plugin.errors import CheckpointError
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape, PredictorShape

# Frames in tubelets, height and width in patches: square, not square, longer than the config says.
GRIDS = {"square": [(4, 4, 4), (2, 2, 4), (8, 4, 3)], "odd ratio": [(4, 4, 4), (7, 3, 4)]}
GRIDS["grey"] = [(1, 6, 6), (3, 2, 5)]
CASES = [(size, grid) for size, grids in GRIDS.items() for grid in grids]


def _clips(size: str, grid: tuple[int, int, int]) -> torch.Tensor:
    config = SIZES[size]
    patch, tubelet = config["patch_size"], config.get("tubelet_size", 2)
    t, h, w = grid
    shape = (2, config.get("in_chans", 3), t * tubelet, h * patch, w * patch)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _split(grid: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns random context and targets of two clips, not in order."""
    count = grid[0] * grid[1] * grid[2]
    generator = torch.Generator().manual_seed(2)
    shuffled = torch.stack([torch.randperm(count, generator=generator) for _ in range(2)])
    return shuffled[:, : count // 3], shuffled[:, count // 3 :]


@pytest.mark.parametrize(("size", "grid"), CASES)
@torch.no_grad()
def test_encoder_gives_the_tokens_of_transformers(
    tmp_path: Path, size: str, grid: tuple[int, int, int]
) -> None:
    model = hf_folder(tmp_path, size)
    encoder = load_encoder(tmp_path)
    clips = _clips(size, grid)
    assert encoder.grid(clips) == grid
    context, _ = _split(grid)
    everything = torch.arange(grid[0] * grid[1] * grid[2]).expand(2, -1)
    for indices in (context, everything):
        expected = hf_encode(model, clips, grid, indices)
        assert (encoder(clips, indices) - expected).abs().max() < 1e-4
    side = model.config.crop_size // model.config.patch_size
    if grid[1:] == (side, side):
        whole = model(clips.transpose(1, 2), skip_predictor=True).last_hidden_state
        assert (encoder(clips) - whole).abs().max() < 1e-4


@pytest.mark.parametrize(("size", "grid"), CASES)
@torch.no_grad()
def test_predictor_gives_the_predictions_of_transformers(
    tmp_path: Path, size: str, grid: tuple[int, int, int]
) -> None:
    model = hf_folder(tmp_path, size)
    predictor = load_predictor(tmp_path)
    context, target = _split(grid)
    tokens = torch.randn(2, grid[0] * grid[1] * grid[2], model.config.hidden_size)
    # That model gathers its context by place in its own grid.
    side = model.config.crop_size // model.config.patch_size
    placed = torch.zeros(2, grid[0] * side * side, model.config.hidden_size)
    everywhere = hf_places(model, grid, torch.arange(tokens.shape[1]).expand(2, -1))
    placed.scatter_(1, everywhere[..., None].expand_as(tokens), tokens)
    places = [[hf_places(model, grid, indices)] for indices in (context, target)]
    seen = tokens.gather(1, context[..., None].expand(-1, -1, tokens.shape[-1]))

    expected = model.predictor(placed, *places).last_hidden_state
    assert (predictor(seen, context, target, grid, mask_index=1) - expected).abs().max() < 1e-4
    assert (predictor(seen, context, target, grid, mask_index=0) - expected).abs().max() > 1e-2

    # It always takes token 1, so the first is put in its place.
    model.predictor.embeddings.mask_tokens[1] = model.predictor.embeddings.mask_tokens[0].clone()
    first = model.predictor(placed, *places).last_hidden_state
    assert (predictor(seen, context, target, grid, mask_index=0) - first).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_sizes_that_have_a_name_and_those_that_have_none(tmp_path: Path, name: str) -> None:
    hf_folder(tmp_path, hidden_size=128, num_attention_heads=4, num_hidden_layers=4)
    assert load_encoder(tmp_path / name).shape == EncoderShape.named("vit_nano", patch_size=8)
    hf_folder(tmp_path, hidden_size=128, num_attention_heads=8, num_hidden_layers=4)
    shape = load_encoder(tmp_path / name).shape
    assert (shape.name, shape.num_heads, shape.mlp_ratio) == ("custom", 8, 4.0)


def test_half_precision_and_shards(tmp_path: Path) -> None:
    model = hf_folder(tmp_path / "whole").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "half", max_shard_size="50KB")
    assert len(list((tmp_path / "half").glob("*-of-*.safetensors"))) > 2
    for path in (tmp_path / "half", tmp_path / "half" / "model.safetensors.index.json"):
        encoder, predictor = load_encoder(path), load_predictor(path)
        assert {p.dtype for m in (encoder, predictor) for p in m.parameters()} == {torch.float32}
        whole = load_encoder(tmp_path / "whole")
        rounded = whole.norm.weight.to(torch.bfloat16).float()
        assert torch.equal(encoder.norm.weight, rounded)
        query = model.encoder.layer[0].attention.query.weight.float()
        rows = encoder.state_dict()["blocks.0.attn.qkv.weight"]
        assert torch.equal(rows[:48], query)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    hf_folder(tmp_path / "whole").save_pretrained(tmp_path / "half", max_shard_size="50KB")
    shard = sorted((tmp_path / "half").glob("*-of-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"{shard.name} cannot be read .*copy it again"):
        load_encoder(tmp_path / "half")
    index = tmp_path / "half" / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(CheckpointError, match=r"index\.json cannot be read .*weight_map"):
        load_encoder(tmp_path / "half")


@pytest.mark.parametrize(
    ("load", "lost", "bent"),
    [
        (load_encoder, "encoder.layer.1.attention.key.bias", "encoder.layernorm.weight"),
        (load_predictor, "predictor.layer.0.mlp.fc1.weight", "predictor.embeddings.mask_tokens"),
    ],
)
def test_wrong_keys_are_listed_as_the_file_has_them(
    tmp_path: Path, load: Any, lost: str, bent: str
) -> None:
    hf_folder(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state[lost]
    state[bent] = state[bent][:-1].clone()
    state["pooler.query_tokens"] = torch.zeros(1)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not hold this") as error:
        load(tmp_path)
    assert f"missing ['{lost}']" in str(error.value)
    assert "unexpected ['pooler.query_tokens']" in str(error.value)
    assert f"{bent} {tuple(state[bent].shape)} instead of" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "relu"),
        ("qkv_bias", False),
        ("layer_norm_eps", 1e-5),
        ("model_type", "videomae"),
        ("patch_size", [8, 8]),
        ("num_attention_heads", 5),
        ("hidden_size", 0),
    ],
)
def test_a_config_with_what_our_models_lack_is_refused(
    tmp_path: Path, key: str, value: Any
) -> None:
    hf_folder(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CheckpointError, match=r"config\.json") as error:
        load_encoder(tmp_path)
    assert str(value) in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3"])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    hf_folder(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_encoder(tmp_path)


def test_weights_without_their_config_are_no_file_of_ours(tmp_path: Path) -> None:
    hf_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no finished encoder.*config\.json"):
        load_encoder(tmp_path)
    with pytest.raises(CheckpointError, match=r"no encoder file of this package.*config\.json"):
        load_encoder(tmp_path / "model.safetensors")


@pytest.mark.parametrize("size", ENCODER_SIZES)
def test_transformers_gives_every_size_our_hidden_width(size: str) -> None:
    shape = EncoderShape.named(size)
    config = make_config(shape, PredictorShape(), frames=16, size=224)
    written = json.loads(json.dumps(config))
    assert int(shape.embed_dim * written["mlp_ratio"]) == shape.hidden_dim
    assert int(384 * written["pred_mlp_ratio"]) == PredictorShape().hidden_dim


def test_any_hidden_width_survives_the_ratio() -> None:
    for dim in (12, 48, 384, 1408, 1664):
        for hidden in range(dim, 5 * dim):
            shape = EncoderShape("custom", dim, 1, 2, hidden / dim)
            config = make_config(shape, PredictorShape(), frames=2, size=16)
            assert int(dim * config["mlp_ratio"]) == shape.hidden_dim == hidden
