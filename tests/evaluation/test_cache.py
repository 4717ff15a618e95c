from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from salt_plugin.config import ProbeConfig
from salt_plugin.data import VideoReadError, open_video
from salt_plugin.errors import DataError
from salt_plugin.evaluation import features as extraction
from salt_plugin.evaluation.cache import FeatureStore, StoredFeatures, cache_root
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.features import encode, stored_features
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.views import ViewDataset
from salt_plugin.video.reader import Reader


def features(
    encoder: FrozenEncoder, config: ProbeConfig, control: str | None = None
) -> StoredFeatures:
    return stored_features(encoder, read_lists(config), "test", config, control)


@pytest.fixture
def small(small: ProbeConfig) -> ProbeConfig:
    return replace(small, segments=2, crops=3, feature_batch_size=3)


def stores(config: ProbeConfig) -> list[Path]:
    return sorted(cache_root(config.cache).iterdir())


def test_what_is_stored_is_what_the_encoder_gives(
    nano: FrozenEncoder, small: ProbeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def watched(encoder: FrozenEncoder, clips: torch.Tensor, config: ProbeConfig) -> torch.Tensor:
        tokens = encode(encoder, clips, config)
        slow = [[nano(clip[None])[0] for clip in views] for views in clips]
        torch.testing.assert_close(tokens, torch.stack([torch.stack(x) for x in slow]))
        seen.append(tokens)
        return tokens

    monkeypatch.setattr(extraction, "encode", watched)
    found = features(nano, small)
    whole = torch.cat(seen)
    assert found.tokens is not None
    assert found.tokens.shape == whole.shape == (6, 6, 8, 128)
    torch.testing.assert_close(found.tokens.float(), whole, atol=2**-25, rtol=2**-11)
    torch.testing.assert_close(found.means, whole.mean(2))
    assert found.means.dtype == torch.float32

    monkeypatch.setattr(extraction, "encode", None)  # now everything comes from disk
    again = features(nano, small)
    assert torch.equal(again.means, found.means)
    assert features(nano, replace(small, protocols=["knn"])).tokens is None


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
    nano: FrozenEncoder, small: ProbeConfig, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = FrozenEncoder("nano", type(nano.model)(nano.model.shape))
    normalised = FrozenEncoder("nano", nano.model, mean=[0.5] * 3)
    assert small.test is not None
    lines = Path(small.test).read_text().splitlines()
    (tmp_path / "back.csv").write_text(
        "".join(f"{Path(small.test).parent}/{line}\n" for line in lines[::-1])
    )
    calls: list[tuple[FrozenEncoder, ProbeConfig, str | None]] = [
        (nano, small, None),
        (other, small, None),
        (normalised, small, None),
        (nano, replace(small, step=1), None),
        (nano, replace(small, size=24), None),
        (nano, replace(small, segments=3, crops=2), None),
        (nano, replace(small, test=str(tmp_path / "back.csv")), None),
        (nano, small, "frozen"),
        (nano, small, "shuffled"),
        (nano, replace(small, seed=1), "shuffled"),
    ]
    for number, (encoder, config, control) in enumerate(calls, start=1):
        features(encoder, config, control)
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
    original = open_video

    def opening(path: str, reader: str) -> Reader:
        used.append(reader)
        return original(path, reader)

    monkeypatch.setattr("salt_plugin.evaluation.views.open_video", opening)
    monkeypatch.setattr("salt_plugin.evaluation.views.DEFAULT_READER", "decord")
    features(nano, small)
    assert used == ["decord"] * 6
    assert len(stores(small)) == 2


def test_a_file_that_changed_is_read_again(
    nano: FrozenEncoder, small: ProbeConfig, labelled: Path, tmp_path: Path
) -> None:
    for number in range(6):
        shutil.copy(labelled / f"test{number}.mp4", tmp_path)
    shutil.copy(labelled / "test.csv", tmp_path)
    moved = replace(small, test=str(tmp_path / "test.csv"))
    before = features(nano, moved).means
    shutil.copy(labelled / "test5.mp4", tmp_path / "test1.mp4")
    after = features(nano, moved).means
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("name", ["tokens.f16", "means.f32"])
def test_files_of_another_length_are_refused_and_kept(
    nano: FrozenEncoder, small: ProbeConfig, name: str
) -> None:
    features(nano, small)
    (store,) = stores(small)
    right, about = (store / name).read_bytes(), json.loads((store / "store.json").read_text())
    for changed in (right[:-1], right + b"0", b""):
        (store / name).write_bytes(changed)
        for rows in (6, 3):  # read whole, and gone on with
            (store / "store.json").write_text(json.dumps(about | {"rows": rows}))
            _refused(nano, small, name)
        assert (store / name).read_bytes() == changed
    (store / name).unlink()
    _refused(nano, small, name)


@pytest.mark.parametrize("rows", ["-1", "7", "[1]", "[" * 10**5, "x"])
def test_the_number_of_rows_is_checked(nano: FrozenEncoder, small: ProbeConfig, rows: str) -> None:
    features(nano, small)
    (store,) = stores(small)
    for text in (f'{{"rows": {rows}}}', rows):
        (store / "store.json").write_text(text)
        _refused(nano, small, "store.json")


def _refused(nano: FrozenEncoder, small: ProbeConfig, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} is no features .*remove ") as caught:
        features(nano, small)
    assert len(str(caught.value)) < 1000


def test_a_store_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = (FeatureStore(tmp_path, {}, (2, 1, 4, 8), tokens=True) for _ in range(2))

    def batches(start: int) -> Iterator[StoredFeatures]:
        with pytest.raises(DataError, match="another process writes"):
            second.extend(batches, print)
        yield StoredFeatures(torch.zeros(2, 1, 8), torch.zeros(2, 1, 4, 8))

    first.extend(batches, print)
    assert second.rows_done == 2


def no_batches(start: int) -> list[StoredFeatures]:
    return []


def test_too_large_a_store_is_refused_before_it_is_made(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, {}, (10**9, 24, 1568, 1024), tokens=True)
    with pytest.raises(DataError, match=r"take \d+\.\d GB .* give --cache DIR"):
        store.extend(no_batches, print)


def test_a_folder_that_cannot_be_made_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FeatureStore(tmp_path / "file", {}, (2, 1, 4, 8), tokens=True)
    with pytest.raises(DataError, match=r"cannot be written to .*file.*: give --cache DIR"):
        store.extend(no_batches, print)


def test_bfloat16_is_close_to_float32(nano: FrozenEncoder, small: ProbeConfig) -> None:
    clips = torch.randn(2, 3, 3, 4, 16, 16)
    exact, rounded = (encode(nano, clips, replace(small, precision=p)) for p in ("32", "bf16"))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=0.05, rtol=0.05)
