from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.config import ProbeConfig, probe_config
from salt_plugin.config.evaluation import Heads
from salt_plugin.errors import ConfigError
from salt_plugin.evaluation.demands import demands
from salt_plugin.evaluation.encoders import FrozenEncoder, open_encoder
from salt_plugin.evaluation.grid import GridSettings, batches_of, initial_probe
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.protocol import probe
from salt_plugin.evaluation.segments import SegmentDataset, segment_frames
from salt_plugin.evaluation.vjepa2 import schedules_of, train_heads

HEADS = [Heads([3e-3, 1e-3], [0.4]), Heads([2e-3], [0.1], warmup=1, start_rate=1e-4)]


@pytest.fixture
def config(small: ProbeConfig) -> ProbeConfig:
    return replace(
        small,
        protocols=["vjepa2"],
        step=1,
        segments=2,
        crops=3,
        batch_size=5,
        feature_batch_size=4,
        layers=2,
        heads=HEADS,
        choose="test",
    )


def _schedule(head: int, step: int, total: int) -> tuple[float, float]:
    if head < 2:
        return (3e-3, 1e-3)[head] * 0.5 * (1 + math.cos(math.pi * step / total)), 0.4
    warmup = total // 2  # one of two epochs
    if step < warmup:
        return 1e-4 + step / warmup * (2e-3 - 1e-4), 0.1
    return 2e-3 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))), 0.1


def _tokens(encoder: FrozenEncoder, views: Tensor) -> list[Tensor]:
    """The tokens [N, D] of each crop of a video, [V, S, C, T, H, W]: blocks, segments, in turn."""
    found = []
    for crop in views:
        parts = []
        for segment in crop:
            blocks: list[Tensor] = []
            model: Any = encoder.model
            hooks = [
                block.register_forward_hook(lambda *args, blocks=blocks: blocks.append(args[2]))
                for block in list(model.blocks)[-2:]
            ]
            encoder(segment[None])
            for hook in hooks:
                hook.remove()
            parts += [model.norm(block) for block in blocks]
        found.append(torch.cat(parts))
    return found


def test_the_protocol_is_that_of_a_plain_loop(nano: FrozenEncoder, config: ProbeConfig) -> None:
    lists, settings = read_lists(config), GridSettings(epochs=2, batch_size=5, seed=config.seed)
    found = train_heads(nano, lists, config)

    train, test = (
        SegmentDataset(one.paths, config, training, nano.mean, nano.std)
        for one, training in ((lists.train, True), (lists.test, False))
    )
    batches = [(e, batch) for e in (1, 2) for batch in batches_of(settings, e, 12)]
    assert [len(batch) for _, batch in batches] == [5, 5, 2] * 2
    accuracies = []
    for place in range(3):
        head = initial_probe(settings, place, nano.embed_dim, 3)
        optimizer = torch.optim.AdamW(head.parameters())
        for step, (epoch, batch) in enumerate(batches, start=1):
            rate, decay = _schedule(place, step, len(batches))
            optimizer.param_groups[0].update(lr=rate, weight_decay=decay)
            optimizer.zero_grad()
            for i in batch.tolist():
                (tokens,) = _tokens(nano, train[epoch, i])
                logits = head(tokens[None])
                (F.cross_entropy(logits, lists.train.labels_n[i : i + 1]) / len(batch)).backward()
            optimizer.step()
        predicted = []
        for i in range(6):
            views = torch.stack([head(one[None])[0] for one in _tokens(nano, test[0, i])])
            assert len(views) == 3
            predicted.append(views.softmax(-1).mean(0).argmax().item())
        right = (torch.tensor(predicted) == lists.test.labels_n).double().mean().item()
        accuracies.append(right)
        if place == found.best:
            assert found.predicted_n.tolist() == predicted
            for mine, theirs in zip(found.probe.parameters(), head.parameters(), strict=True):
                torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=2e-3)
    assert [point.accuracy for point in found.points] == pytest.approx(accuracies)
    assert found.chosen_on == "test"


def test_an_interrupted_evaluation_goes_on_from_its_last_epoch(
    nano: FrozenEncoder, config: ProbeConfig, tmp_path: Path
) -> None:
    config = replace(config, cache=str(tmp_path / "cache"))
    lists = read_lists(config)
    whole = train_heads(nano, lists, config)
    made: list[int] = []

    def count(title: str, step: int, steps: int) -> None:
        made.append(step)
        if step == 5 and made.count(5) == 1:  # of three steps an epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_heads(nano, lists, config, count)
    assert len(list((tmp_path / "cache").glob("vjepa2-*.pt"))) == 1
    found = train_heads(nano, lists, config, count)
    assert made == [1, 2, 3, 4, 5, 4, 5, 6]
    assert found.points == whole.points
    for mine, theirs in zip(found.probe.parameters(), whole.probe.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert list((tmp_path / "cache").iterdir()) == []


def test_heads_are_chosen_on_a_part_of_the_training_list_by_default(
    nano: FrozenEncoder, config: ProbeConfig, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    original = SegmentDataset.__getitem__

    def watched(self: SegmentDataset, key: tuple[int, int]) -> Any:
        seen[self.training].add(self.paths[key[1]])
        return original(self, key)

    monkeypatch.setattr(SegmentDataset, "__getitem__", watched)
    report = probe(nano, replace(config, choose="val", layers=1, epochs=1)).as_dict()
    assert report["vjepa2"]["chosen_on"] == "train"
    assert report["vjepa2"]["kept"] == "all tokens of all segments"
    chosen_by = {path for path in seen[False] if "train" in Path(path).name}
    assert len(seen[True]) == 9  # a fifth of each class is held out, one at least
    assert len(chosen_by) == 3
    assert not chosen_by & seen[True]
    listed = replace(config, choose="val", layers=1, epochs=1, val=str(labelled / "val.csv"))
    assert probe(nano, listed).results["vjepa2"].chosen_on == "val"


def test_the_sets_are_those_of_vjepa2() -> None:
    sets = {name: probe_config(name, protocols=["vjepa2"]) for name in ("k400", "ssv2", "coin")}
    for name, batch in (("k400", 256), ("ssv2", 256), ("coin", 128)):
        assert len(schedules_of(sets[name], 10)) == 20
        assert (sets[name].batch_size, sets[name].epochs, sets[name].frames) == (batch, 20, 16)
    for name in ("diving48", "jester"):
        one = probe_config(name, protocols=["vjepa2"])
        assert [head.rate for head in schedules_of(one, 10)] == [1e-3, 3e-4, 1e-4]
        assert {head.decay for head in schedules_of(one, 10)} == {0.8}
        assert (one.batch_size, one.epochs, one.frames, one.step) == (128, 100, 32, 2)
        assert (one.layers, one.segments, one.crops) == (4, 4, 3)
        assert probe_config(name).frames == 16
    images = probe_config("in1k", protocols=["vjepa2"])
    heads = schedules_of(images, 10)
    assert (len(heads), images.batch_size) == (21, 1024)
    assert heads[0].at(200) == {"lr": 0.0, "weight_decay": 0.0}
    assert heads[1].at(25)["lr"] == pytest.approx(3.5e-4)
    assert heads[1].at(200) == {"lr": 0.0, "weight_decay": 8e-3}


def test_what_cannot_be_is_said_at_the_start(config: ProbeConfig, nano: FrozenEncoder) -> None:
    with pytest.raises(ConfigError, match=r"probe\.protocols=.* vjepa2: expected \[vjepa2\] alone"):
        probe_config("k400", protocols=["vjepa2", "knn"])
    with pytest.raises(ConfigError, match=r"probe\.fps=4\.0 with protocol vjepa2: expected step"):
        probe_config("k400", protocols=["vjepa2"], fps=4)
    with pytest.raises(ConfigError, match=r"probe\.layers=9: nano has not so many blocks"):
        train_heads(nano, read_lists(config), replace(config, layers=9))


def test_segments_are_drawn_by_parts_and_short_videos_repeat_their_end() -> None:
    rng = np.random.default_rng(0)
    for total in (40, 97):
        for segment, rows in enumerate(segment_frames(total, 4, 2, 3, rng)):
            assert (np.diff(rows) > 0).all()
            assert segment * (total // 3) <= rows[0]
            assert rows[-1] < (segment + 1) * (total // 3)
            assert rows[-1] - rows[0] == 7  # V-JEPA 2 spreads a clip over frames x step
    starts = {segment_frames(100, 4, 2, 1, rng)[0, 0] for _ in range(2000)}
    assert starts == set(range(92))
    assert segment_frames(20, 4, 2, 3, rng).tolist() == [
        [0, 3, 6, 6], [6, 9, 12, 12], [12, 15, 18, 18],
    ]  # fmt: skip
    assert segment_frames(1, 4, 2, 2, rng).tolist() == [[0] * 4] * 2


def test_augmentation_is_a_function_of_epoch_and_place_alike_in_all_frames(
    config: ProbeConfig, labelled: Path
) -> None:
    paths = [str(labelled / "train0.mp4")]
    data = SegmentDataset(paths, config, True, [0.5] * 3, [0.5] * 3)
    random.seed(1)
    torch.manual_seed(1)
    first, state, numbers = data[1, 0], torch.get_rng_state(), random.getstate()
    random.seed(2)
    again, other = data[1, 0], data[2, 0]
    assert isinstance(first, Tensor)
    assert first.shape == (1, 2, 3, 4, 16, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    random.setstate(numbers)
    assert torch.equal(torch.get_rng_state(), state)
    still = torch.full((4, 3, 32, 32), 90, dtype=torch.uint8)
    still[:, :, 8:20, 4:30] = 200
    for seed in range(8):
        torch.manual_seed(seed)
        data.augment.erase.p = 0.0
        clip = data.augment(still)
        assert torch.equal(clip, clip[:, :1].expand_as(clip))


def test_images_are_one_segment_that_repeats(
    nano: FrozenEncoder, config: ProbeConfig, tmp_path: Path
) -> None:
    from PIL import Image

    rows = []
    for number in range(6):
        colour = tuple(200 * (number % 2 == channel) for channel in range(3))
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png {number % 2}\n")
    (tmp_path / "all.csv").write_text("".join(rows))
    lists = {split: str(tmp_path / "all.csv") for split in ("train", "test")}
    images = replace(config, **lists, images=True, segments=1, crops=1, layers=1)
    data = SegmentDataset([str(tmp_path / "0.png")], images, True, nano.mean, nano.std)
    views = data[1, 0]
    assert isinstance(views, Tensor)
    assert views.shape == (1, 1, 3, 4, 16, 16)
    assert torch.equal(views, views[:, :, :, :1].expand_as(views))
    with pytest.warns(UserWarning, match="are in the list train"):
        assert probe(nano, images).results["vjepa2"].n_test == 6


def test_what_it_takes_is_said_before(labelled: Path, tmp_path: Path) -> None:
    lists = {split: str(labelled / f"{split}.csv") for split in ("train", "test")}
    given: dict[str, Any] = {**lists, "classes": None, "size": 32, "cache": str(tmp_path)}
    encoder = open_encoder("random:vit_nano")
    config = probe_config("k400", **given)
    said = demands(encoder, read_lists(config), config)
    size = 2 * (12 + 6 * 24) * encoder.tokens(16, 32) * encoder.embed_dim
    assert said.startswith("features of train 12 x 1, test 6 x 24 views: tokens take up to ")
    assert f"{size / 1e6:.3g} MB in {tmp_path}" in said
    config = probe_config("k400", **given, protocols=["vjepa2"])
    said = demands(encoder, read_lists(config), config)
    assert "20 epochs of 12 videos x 8 segments, 20 probes: about" in said
