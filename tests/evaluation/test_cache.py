from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from salt_plugin.config import ProbeConfig
from salt_plugin.data import VideoReadError, open_reader
from salt_plugin.errors import DataError
from salt_plugin.evaluation import extract as extraction
from salt_plugin.evaluation.cache import FeatureStore, cache_root
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.extract import Wanted, extract
from salt_plugin.evaluation.features import Extraction, encode, quiet
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.stored import StoredFeatures
from salt_plugin.evaluation.views import ViewDataset, Views
from salt_plugin.video.reader import Reader

HOW = Extraction(batch_size=3)


def wanted(config: ProbeConfig, **changes: Any) -> Wanted:
    paths = read_lists(config).test.paths
    return Wanted(paths, Views(2, 3), control=None, seed=0, tokens=True)._replace(**changes)


def features(encoder: FrozenEncoder, config: ProbeConfig, **changes: Any) -> StoredFeatures:
    want = wanted(config, **changes)
    return extract(encoder, want, config, HOW, cache_root(config.cache), quiet, "")


def stores(config: ProbeConfig) -> list[Path]:
    return sorted(cache_root(config.cache).iterdir())


def test_what_is_stored_is_what_the_encoder_gives(
    nano: FrozenEncoder, small: ProbeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def watched(encoder: FrozenEncoder, clips: torch.Tensor, how: Extraction) -> torch.Tensor:
        tokens = encode(encoder, clips, how)
        slow = [[nano(clip[None])[0] for clip in views] for views in clips]
        torch.testing.assert_close(tokens, torch.stack([torch.stack(x) for x in slow]))
        seen.append(tokens)
        return tokens

    monkeypatch.setattr(extraction, "encode", watched)
    found = features(nano, small)
    whole = torch.cat(seen)
    assert found.tokens is not None
    assert found.tokens.shape == whole.shape == (6, 6, 8, 128)
    torch.testing.assert_close(found.tokens[torch.arange(6)], whole, atol=2**-25, rtol=2**-11)
    torch.testing.assert_close(found.means, whole.mean(2))
    assert torch.equal(found.tokens[torch.tensor([4, 1])], found.tokens[torch.arange(6)][[4, 1]])

    monkeypatch.setattr(extraction, "encode", None)  # now everything comes from disk
    again = features(nano, small)
    assert torch.equal(again.means, found.means)
    assert features(nano, small, tokens=False).tokens is None


def test_an_interrupted_extraction_goes_on_where_it_stopped(
    nano: FrozenEncoder, small: ProbeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    original = ViewDataset.__getitem__

    def fails_once(self: ViewDataset, index: int) -> torch.Tensor | VideoReadError:
        opened.append(index)
        if opened == [0, 1, 2, 3]:
            raise MemoryError("as if the machine had gone")
        return original(self, index)

    monkeypatch.setattr(ViewDataset, "__getitem__", fails_once)
    with pytest.raises(MemoryError):
        features(nano, small)
    resumed = features(nano, small)
    assert opened == [0, 1, 2, 3, 3, 4, 5]
    shutil.rmtree(cache_root(small.cache))
    assert torch.equal(resumed.means, features(nano, small).means)


def test_a_key_changes_with_all_that_features_depend_on(
    nano: FrozenEncoder, small: ProbeConfig
) -> None:
    torch.manual_seed(1)
    other = FrozenEncoder.of("nano", type(nano.model)(nano.model.shape))
    normalised = FrozenEncoder.of("nano", nano.model, mean=[0.5] * 3)
    paths = wanted(small).paths
    calls: list[tuple[FrozenEncoder, ProbeConfig, dict[str, Any]]] = [
        (nano, small, {}),
        (other, small, {}),
        (normalised, small, {}),
        (nano, replace(small, step=1), {}),
        (nano, replace(small, size=24), {}),
        (nano, small, {"views": Views(3, 2)}),
        (nano, small, {"paths": paths[::-1]}),
        (nano, small, {"control": "frozen"}),
        (nano, small, {"control": "shuffled"}),
        (nano, small, {"control": "shuffled", "seed": 1}),
    ]
    for number, (encoder, config, changes) in enumerate(calls, start=1):
        features(encoder, config, **changes)
        assert len(stores(small)) == number
    features(nano, small)
    assert len(stores(small)) == len(calls)


def test_what_another_reader_gave_is_not_used(
    nano: FrozenEncoder, small: ProbeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(nano, small)
    (store,) = stores(small)
    assert json.loads((store / "store.json").read_text())["reader"] == "pyav"
    used: list[str] = []
    original = open_reader

    def opening(path: str, reader: str) -> Reader:
        used.append(reader)
        return original(path, reader)

    monkeypatch.setattr("salt_plugin.evaluation.views.open_reader", opening)
    monkeypatch.setattr("salt_plugin.evaluation.views.DEFAULT_READER", "decord")
    features(nano, small)
    assert used == ["decord"] * 6
    assert len(stores(small)) == 2


def test_a_file_that_changed_is_read_again(
    nano: FrozenEncoder, small: ProbeConfig, labelled: Path, tmp_path: Path
) -> None:
    moved = [shutil.copy(labelled / f"test{i}.mp4", tmp_path) for i in range(2)]
    before = features(nano, small, paths=moved).means
    shutil.copy(labelled / "test5.mp4", moved[1])
    after = features(nano, small, paths=moved).means
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_features_of_another_encoder_are_refused_and_kept(
    nano: FrozenEncoder, small: ProbeConfig
) -> None:
    features(nano, small)
    (store,) = stores(small)
    meta = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(meta | {"encoder": "another"}))
    before = (store / "tokens.npy").read_bytes()
    with pytest.raises(DataError, match=r"holds other features than these: encoder is another"):
        features(nano, small)
    with pytest.raises(DataError, match=r"holds other features|is one store"):
        features(nano, replace(small, cache=str(store)))
    assert (store / "tokens.npy").read_bytes() == before


class _Canary:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["tokens.npy", "means.npy"])
def test_features_are_numbers_and_as_many_as_the_store_says(
    nano: FrozenEncoder, small: ProbeConfig, tmp_path: Path, name: str
) -> None:
    features(nano, small)
    (store,) = stores(small)
    trace, right = tmp_path / "trace", (store / name).read_bytes()
    for array in (
        np.array([_Canary(trace)], dtype=object),
        np.zeros(3, np.float16),
        np.zeros((6, 6, 128), np.int8),
    ):
        np.save(store / name, array, allow_pickle=True)
        _refused(nano, small, name)
    (store / name).write_bytes(pickle.dumps(_Canary(trace)))
    _refused(nano, small, name)
    for changed in (
        right.replace(b"(6, 6", b"(6, 2**40"),
        right.replace(b"(6, 6, ", b"(99999999999999, 6, "),
        right.replace(b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00"),
        right.replace(b"False", b"True "),
        right[:-1],
        right[:20],
        b"",
    ):
        assert changed != right
        (store / name).write_bytes(changed)
        for rows in (6, 3):  # read whole, and gone on with
            (store / "rows.json").write_text(str(rows))
            _refused(nano, small, name)
        assert (store / name).read_bytes() == changed
        (store / "rows.json").write_text("6")
    assert not trace.exists()


@pytest.mark.parametrize("rows", ["-1", "7", "[1]", "[" * 10**5, "x", "true"])
def test_how_many_rows_are_done_is_a_number(
    nano: FrozenEncoder, small: ProbeConfig, rows: str
) -> None:
    features(nano, small)
    (store,) = stores(small)
    (store / "rows.json").write_text(rows)
    _refused(nano, small, "rows.json")


def _refused(nano: FrozenEncoder, small: ProbeConfig, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} is no features .*remove ") as caught:
        features(nano, small)
    assert len(str(caught.value)) < 1000


def test_a_store_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = (FeatureStore(tmp_path, {}, (2, 1, 4, 8), tokens=True) for _ in range(2))
    with (
        first.writing(),
        pytest.raises(DataError, match="another process writes"),
        second.writing(),
    ):
        pass


def test_too_large_a_store_is_refused_before_it_is_made(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, {}, (10**9, 24, 1568, 1024), tokens=True)
    with pytest.raises(DataError, match=r"take \d+\.\d GB .* give --cache DIR"), store.writing():
        pass


def test_a_folder_that_cannot_be_made_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FeatureStore(tmp_path / "file", {}, (2, 1, 4, 8), tokens=True)
    with (
        pytest.raises(DataError, match=r"cannot be written to .*file.*: give --cache DIR"),
        store.writing(),
    ):
        pass


def test_values_that_float16_cannot_hold_are_an_error(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, {}, (1, 1, 2, 3), tokens=True)
    with (
        pytest.raises(DataError, match="not finite in float16"),
        store.writing() as writer,
    ):
        writer.add(torch.full((1, 1, 2, 3), 1e6), torch.zeros(1, 1, 3))
    assert store.rows_done == 0


def test_bfloat16_is_close_to_float32(nano: FrozenEncoder) -> None:
    clips = torch.randn(2, 3, 3, 4, 16, 16)
    exact, rounded = (encode(nano, clips, HOW._replace(precision=p)) for p in ("32", "bf16"))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=0.05, rtol=0.05)
