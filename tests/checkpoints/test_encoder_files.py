from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import salt_plugin
from salt_plugin.checkpoints import (
    find_encoder,
    load_encoder,
    read_card,
    save_encoder,
)
from salt_plugin.errors import CheckpointError
from salt_plugin.models import EncoderShape, VideoEncoder

SHAPE = EncoderShape("small", embed_dim=24, depth=1, num_heads=2, patch_size=4)


def _encoder(seed: int = 0) -> VideoEncoder:
    torch.manual_seed(seed)
    return VideoEncoder(SHAPE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "student" / "encoder.safetensors"
    save_encoder(_encoder(), path, {"method": "salt", "steps": 7})
    return path


def _edit_card(file: Path, **changes: object) -> None:
    card = json.loads(file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps({**card, **changes}))


def test_round_trip(file: Path) -> None:
    loaded = salt_plugin.load_encoder(file)
    assert not loaded.training
    assert loaded.shape == SHAPE
    for name, value in _encoder().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    clip = torch.randn(2, 3, 4, 8, 12)
    assert torch.equal(loaded(clip), _encoder().eval()(clip))
    assert loaded(clip).shape == (2, 2 * 2 * 3, 24)


def test_nothing_but_the_file_and_its_card_is_left(file: Path) -> None:
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "encoder.json",
        "encoder.safetensors",
    ]
    card = read_card(file)
    assert card["method"] == "salt"
    assert card["steps"] == 7
    assert card["shape"]["embed_dim"] == 24


def test_saving_again_replaces_both(file: Path) -> None:
    save_encoder(_encoder(seed=1), file, {})
    expected = _encoder(seed=1).state_dict()["norm.weight"]
    assert torch.equal(load_encoder(file).state_dict()["norm.weight"], expected)
    assert "steps" not in read_card(file)


def test_half_precision_weights_keep_their_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(_encoder().to(torch.bfloat16), path, {})
    weight = load_encoder(path).patch_embed.proj.weight
    assert torch.equal(weight, _encoder().patch_embed.proj.weight.to(torch.bfloat16).float())


def test_run_directory_and_stage_folder_name_their_encoder(file: Path) -> None:
    run = file.parents[1]
    teacher = run / "teacher" / "encoder.safetensors"
    save_encoder(_encoder(), teacher, {})
    assert find_encoder(run) == file
    assert find_encoder(run, ("teacher",)) == teacher
    assert find_encoder(str(run / "teacher")) == teacher
    assert find_encoder(file) == file
    file.unlink()
    assert find_encoder(run) == teacher


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere does not exist; expected an encoder file"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no finished encoder") as error:
        load_encoder(tmp_path)
    assert "student/encoder.safetensors, teacher/encoder.safetensors" in str(error.value)


def test_file_of_somebody_else(tmp_path: Path, file: Path) -> None:
    foreign = tmp_path / "vjepa.pt"
    foreign.write_bytes(b"\x80\x02pickle")
    with pytest.raises(CheckpointError, match=r"vjepa\.pt cannot be read as tensors"):
        load_encoder(foreign)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(file, alone)
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file with alone\.json"):
        load_encoder(alone)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "not json", '{"shape": {"embed_dim": 3}}', '{"shape": 3}']
)
def test_card_that_is_none(file: Path, text: str) -> None:
    file.with_suffix(".json").write_text(text)
    with pytest.raises(CheckpointError, match=r"encoder\.json is no encoder card .*copy it again"):
        load_encoder(file)


def test_card_of_another_version(file: Path) -> None:
    shape = read_card(file)["shape"]
    _edit_card(file, shape={**shape, "registers": 4})
    with pytest.raises(CheckpointError, match=r"states \(.*'registers'.*version that wrote it"):
        load_encoder(file)
    del shape["depth"]
    _edit_card(file, shape=shape)
    with pytest.raises(CheckpointError, match=r"states \(.*missing.*'depth'"):
        load_encoder(file)


def test_shape_that_cannot_be(file: Path) -> None:
    shape = read_card(file)["shape"]
    _edit_card(file, shape={**shape, "num_heads": 5})
    with pytest.raises(CheckpointError, match="width 24 over 5 heads"):
        load_encoder(file)
    for value in ("two", None, 0):
        _edit_card(file, shape={**shape, "num_heads": value})
        with pytest.raises(CheckpointError, match=r"encoder\."):
            load_encoder(file)


@pytest.mark.parametrize("keep", [0, 100, 4000])
def test_truncated_file(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors cannot be read .*again"):
        load_encoder(file)


def test_weights_of_another_shape_or_name(file: Path) -> None:
    state = load_file(file)
    del state["norm.bias"]
    state["head.weight"] = torch.zeros(2)
    state["norm.weight"] = torch.zeros(25)
    save_file(state, file)
    with pytest.raises(CheckpointError, match="does not hold this encoder") as error:
        load_encoder(file)
    for part in ("norm.bias", "head.weight", "norm.weight (25,) instead of (24,)"):
        assert part in str(error.value)


def test_one_flipped_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"does not match the fingerprint in encoder\.json"):
        load_encoder(file)


def test_card_from_another_run(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_encoder(_encoder(seed=1), other, {})
    shutil.copy(other.with_suffix(".json"), file.with_suffix(".json"))
    with pytest.raises(CheckpointError, match="the two come from different runs; copy both again"):
        load_encoder(file)
