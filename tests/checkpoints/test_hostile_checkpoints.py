"""Checkpoints of strangers: code in them never runs, and sizes that they state are not believed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import power_failure
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_run import TINY

from salt_plugin import load_encoder
from salt_plugin.checkpoints import load_predictor, read_bill, read_input, save_encoder
from salt_plugin.commands import export, probe
from salt_plugin.config import compose
from salt_plugin.errors import CheckpointError, SaltError
from salt_plugin.evaluation import open_encoder
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.train import run

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SHAPE = EncoderShape("tiny", 12, 1, 2, patch_size=4)


class Canary:
    """Makes a folder where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def zipped(path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"archive/{name.replace('_', '.')}", content)
    return path


def saved(path: Path, trace: Path) -> Path:
    torch.save({"encoder": Canary(trace)}, path)
    return path


def saved_as_before_1_6(path: Path, trace: Path) -> Path:
    torch.save({"encoder": Canary(trace)}, path, _use_new_zipfile_serialization=False)
    return path


def pickled(path: Path, trace: Path) -> Path:
    path.write_bytes(pickle.dumps({"encoder": Canary(trace)}))
    return path


def with_a_shell_command(path: Path, trace: Path) -> Path:
    command = f"cposix\nsystem\n(S'mkdir {trace}'\ntR.".encode()
    return zipped(path, data_pkl=command, version=b"3\n", byteorder=b"little")


MESSAGES = {
    saved: "wants to call posix.mkdir. It was not run",
    with_a_shell_command: "wants to call posix.system. It was not run",
    saved_as_before_1_6: "nothing in it was executed",
    pickled: "nothing in it was executed",
}
KINDS = tuple(MESSAGES)


def train(run_dir: Path, videos: Path, *keys: str) -> None:
    run(compose([*TINY, "trainer.max_steps=2", f"input_dir={videos}", *keys]), run_dir)


@pytest.mark.parametrize("make", KINDS)
def test_a_pickle_with_code_is_refused_everywhere_and_never_run(
    tmp_path: Path, tiny_videos: Path, make: Callable[[Path, Path], Path]
) -> None:
    trace = tmp_path / "trace"
    file = make(tmp_path / "stranger.pt", trace)
    runs, videos = tmp_path / "runs", str(tiny_videos)
    entries: dict[str, Callable[[], Any]] = {
        "load_encoder": partial(load_encoder, file),
        "load_predictor": partial(load_predictor, file),
        "checkpoint=": lambda: train(runs / "1", tiny_videos, "method=vjepa", f"checkpoint={file}"),
        "method.teacher.path=": lambda: train(
            runs / "2", tiny_videos, "method=salt", f"method.teacher.path={file}"
        ),
        "method.continue_from=": lambda: train(
            runs / "3", tiny_videos, "method=vjepa", f"method.continue_from={file}"
        ),
        "salt export": lambda: export.main([str(file), "--format", "hf"]),
        "salt probe": lambda: probe.main([str(file), "--train", videos, "--test", videos]),
        "salt probe timm:": lambda: probe.main(
            [f"timm:test_vit:{file}", "--train", videos, "--test", videos]
        ),
        "salt probe random:": partial(open_encoder, f"random:{file}"),
    }
    for entry, call in entries.items():
        with pytest.raises(CheckpointError) as caught:
            call()
        message = str(caught.value)
        for part in ("stranger.pt", MESSAGES[make], "safetensors"):
            assert part in message, entry
        assert len(message.splitlines()) == 1, entry
        assert not trace.exists(), entry
    assert not runs.exists()


@pytest.fixture(scope="module")
def begun(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after its first step."""
    run_dir = tmp_path_factory.mktemp("runs") / "begun"
    with power_failure(2):
        train(run_dir, tiny_videos, "method=pixel_teacher", "method.checkpoint.every_n_steps=1")
    return run_dir


@pytest.mark.parametrize("make", KINDS)
def test_a_run_of_a_stranger_does_not_resume_from_code(
    begun: Path, tiny_videos: Path, tmp_path: Path, make: Callable[[Path, Path], Path]
) -> None:
    shutil.copytree(begun, tmp_path / "run")
    last, trace = tmp_path / "run" / "teacher" / "checkpoints" / "last.ckpt", tmp_path / "trace"
    last.rename(last.with_name("kept.ckpt"))
    make(last, trace)
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be resumed from.*delete"):
        train(tmp_path / "run", tiny_videos, "method=pixel_teacher")
    last.with_name("kept.ckpt").rename(last.with_name("previous.ckpt"))
    with pytest.warns(UserWarning, match=r"previous\.ckpt, step 1, is used"):
        train(tmp_path / "run", tiny_videos, "method=pixel_teacher")
    assert (tmp_path / "run" / "summary.json").is_file()
    assert not trace.exists()


@pytest.mark.parametrize("step", [None, "four", -1, float("nan")])
def test_a_checkpoint_without_a_step_is_not_resumed_from(
    begun: Path, tiny_videos: Path, tmp_path: Path, step: Any
) -> None:
    shutil.copytree(begun, tmp_path / "run")
    last = tmp_path / "run" / "teacher" / "checkpoints" / "last.ckpt"
    torch.save({**torch.load(last, weights_only=True), "global_step": step}, last)
    with pytest.raises(CheckpointError, match="expected a number of steps"):
        train(tmp_path / "run", tiny_videos, "method=pixel_teacher")


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    file = tmp_path / "encoder.safetensors"
    torch.manual_seed(0)
    card = {"input": {"frames": 4, "size": 16, "mean": [0.5], "std": [0.5]}, "compute": {}}
    save_encoder(VideoEncoder(SHAPE), file, card)
    return file


def with_header(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize("length", [2**60, 2**63, 10**6])
def test_the_length_of_a_safetensors_header_is_not_believed(ours: Path, length: int) -> None:
    ours.write_bytes(struct.pack("<Q", length) + ours.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors cannot be read .*header"):
        load_encoder(ours)


def test_a_header_larger_than_any_model_is_not_parsed(ours: Path) -> None:
    with ours.open("wb") as file:
        file.write(struct.pack("<Q", 2**27))
        file.truncate(2**28)
    with pytest.raises(CheckpointError, match="header too large"):
        load_encoder(ours)


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [2**40, 2**40]},
        {"shape": [2**30, 8], "data_offsets": [0, 2**35]},
        {"dtype": "F99"},
        {"shape": "many"},
        {"data_offsets": [2**62, 2**62]},
    ],
)
def test_shapes_in_a_safetensors_header_have_to_fit_the_file(
    ours: Path, entry: dict[str, Any]
) -> None:
    with_header(ours, lambda header: header["norm.weight"].update(entry))
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors cannot be read .*copy it"):
        load_encoder(ours)


@pytest.mark.parametrize(
    "shape",
    [
        {"depth": 2**40},
        {"embed_dim": 12 * 2**30, "num_heads": 2},
        {"embed_dim": 12 * 2**60, "num_heads": 2},
        {"mlp_ratio": 1e300},
        {"mlp_ratio": "wide"},
        {"depth": "deep"},
        {"tubelet_size": -1},
        {"patch_size": 2**40},
    ],
)
def test_a_card_cannot_ask_for_a_larger_model_than_there_are_weights(
    ours: Path, shape: dict[str, Any]
) -> None:
    card = json.loads(ours.with_suffix(".json").read_text())
    card["shape"] |= shape
    ours.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors"):
        load_encoder(ours)


@pytest.mark.parametrize("text", ["[" * 10**6, "1", "[]", '{"shape": 1}', '{"a": ' + "9" * 5000])
def test_a_card_that_is_none(ours: Path, text: str) -> None:
    ours.with_suffix(".json").write_text(text)
    with pytest.raises(CheckpointError, match=r"encoder\.json is no encoder card"):
        load_encoder(ours)


def test_numbers_on_a_card_are_numbers(ours: Path) -> None:
    card = json.loads(ours.with_suffix(".json").read_text())
    for key, value, read in (
        ("input", {"frames": 4, "size": 10**12}, read_input),
        ("input", {"mean": "grey"}, read_input),
        ("input", {"std": [0, 1]}, read_input),
        ("compute", {"bill": {"total": "much"}}, read_bill),
        ("compute", [1], read_bill),
    ):
        ours.with_suffix(".json").write_text(json.dumps({**card, key: value}))
        with pytest.raises(CheckpointError, match=r"encoder\.(json|safetensors): .*copy"):
            read(ours)


@pytest.mark.parametrize("config", [{"num_hidden_layers": 10**9}, {"mlp_ratio": float("inf")}])
def test_a_huggingface_config_cannot_either(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vjepa2", **config}))
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"(blocks or mask tokens; expected 1 to|mlp_ratio=inf)"
    ):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 7]
)
def test_an_index_names_files_beside_it_alone(tmp_path: Path, name: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "secret.safetensors")
    (folder / "config.json").write_text('{"model_type": "vjepa2"}')
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"encoder.x": name}}))
    with pytest.raises(CheckpointError, match=r"index\.json names the file .* beside it"):
        load_encoder(folder)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match=r"pipe\.pt (does not exist|cannot be read)"):
        load_encoder(tmp_path / "pipe.pt")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))
    assert file.stat().st_size < 2**17
    with pytest.raises(CheckpointError, match=r"bomb\.pt .*compressed, from 67108864 bytes"):
        load_encoder(file)


@pytest.mark.parametrize("numel", [2**20, 2**40, 2**62])
def test_a_storage_cannot_be_larger_than_its_file(tmp_path: Path, numel: int) -> None:
    def stated(number: int) -> bytes:  # as pickle writes it
        return b"\x8a" + bytes([len(x := number.to_bytes(9, "little").rstrip(b"\0") + b"\0")]) + x

    file = tmp_path / "large.pt"
    weights = torch.arange(77777.0)
    torch.save({"encoder": weights}, file)
    old = pickle.dumps(77777, protocol=2)[2:-1]
    assert file.read_bytes().count(old) == 2  # of the storage, and of the shape
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part.replace(old, stated(numel)))
    with pytest.raises(CheckpointError, match=r"large\.pt cannot be read as tensors"):
        load_encoder(file)


def test_a_small_tensor_cannot_be_spread_over_a_large_shape(tmp_path: Path) -> None:
    weight = torch.zeros(1).expand(2**36, 3, 2, 16, 16)
    torch.save({"patch_embed.proj.weight": weight}, tmp_path / "wide.pt")
    with pytest.raises(CheckpointError, match=r"a tensor of shape \(68719476736, 3, 2, 16, 16\)"):
        load_encoder(tmp_path / "wide.pt")


def refused_or_read(file: Path) -> None:
    """Any error but one of ours is raised."""
    try:
        load_encoder(file)
        read_input(file)
        read_bill(file)
    except SaltError as error:
        text = str(error)
        assert file.stem in text
        assert "Traceback" not in text
        assert "weights_only` argument" not in text
        assert len(text) < 4000


@SETTINGS
@given(content=st.binary(max_size=400), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_any_bytes_as_a_checkpoint(ours: Path, content: bytes, suffix: str) -> None:
    file = ours.with_suffix(suffix)
    file.write_bytes(content)
    refused_or_read(file)


@settings(SETTINGS, max_examples=80)
@given(data=st.data(), kind=st.sampled_from(["ours", "card", "zip"]))
def test_any_damage_to_a_checkpoint(ours: Path, data: st.DataObject, kind: str) -> None:
    folder = ours.parent / "damaged"
    folder.mkdir(exist_ok=True)
    file = folder / ours.name
    shutil.copy(ours, file)
    shutil.copy(ours.with_suffix(".json"), file.with_suffix(".json"))
    if kind == "zip":
        file = folder / "encoder.pt"
        torch.save(load_file(ours), file)
    damaged = file.with_suffix(".json") if kind == "card" else file
    content = bytearray(damaged.read_bytes())
    # What is not weights stands at the start, and in archives at the end.
    edge = st.one_of(st.integers(0, min(1500, len(content) - 1)), st.integers(-1500, -1))
    places = st.one_of(edge, st.integers(0, len(content) - 1)).map(
        lambda place: place % len(content)
    )
    for place in data.draw(st.lists(places, min_size=1, max_size=6)):
        content[place] ^= data.draw(st.integers(1, 255))
    end = data.draw(places) if data.draw(st.integers(0, 3)) == 0 else len(content)
    damaged.write_bytes(content[:end])
    refused_or_read(file)
