from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig
from salt_plugin.config.evaluation import Keep
from salt_plugin.data.demo import write_video
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.features import stored_features
from salt_plugin.evaluation.keep import kept
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.probes import chosen_predictions, components
from salt_plugin.evaluation.protocol import probe
from salt_plugin.models import EncoderShape, VideoEncoder


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists train.csv (16) and test.csv (8) of grey videos that get brighter or darker."""
    folder = tmp_path_factory.mktemp("ordered")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 8)):
        lines = []
        for number in range(count):
            grey = np.array([20, 90, 160, 230], np.uint8)[:: 1 - 2 * (number % 2)]
            noise = rng.integers(0, 20, (4, 32, 32, 3), dtype=np.uint8)
            write_video(folder / f"{split}{number}.mp4", grey[:, None, None, None] + noise, fps=8)
            lines.append(f"{split}{number}.mp4 {number % 2}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


def _slow(tokens_nd: Tensor, keep: Keep) -> Tensor:
    """For a grid of 2 times, 4 rows and 4 columns."""
    parts = []
    for time in tokens_nd.reshape(2, 4, 4, -1):
        if keep == "time":
            parts.append(time.mean((0, 1)))
        else:
            parts += [time[y : y + 2, x : x + 2].mean((0, 1)) for y in (0, 2) for x in (0, 2)]
    return torch.cat(parts)


@pytest.mark.parametrize("keep", ["time", "time+space"])
@pytest.mark.parametrize("cls_token", [False, True])
def test_what_is_kept_is_the_mean_over_the_rest(keep: Keep, cls_token: bool) -> None:
    shape = EncoderShape.named("vit_nano", patch_size=8, cls_token=cls_token)
    encoder = FrozenEncoder("one", VideoEncoder(shape))
    tokens = encoder(torch.randn(2, 3, 4, 32, 32))[:, None]
    found = kept(encoder, tokens, 4, keep)
    expected = torch.stack(
        [
            torch.cat([clip[0, : int(cls_token)].flatten(), _slow(clip[0, int(cls_token) :], keep)])
            for clip in tokens
        ]
    )
    torch.testing.assert_close(found[:, 0], expected)
    assert torch.equal(kept(encoder, tokens, 4, "none"), encoder.pool(tokens))


def test_order_is_read_where_time_is_kept(
    nano: FrozenEncoder, small: ProbeConfig, ordered: Path
) -> None:
    lists = {split: str(ordered / f"{split}.csv") for split in ("train", "test")}
    config = replace(small, **lists, step=1, protocols=["linear", "knn"])
    for keep, words in (("time", "time"), ("time+space", "time, 2 x 2 places")):
        found = probe(nano, replace(config, keep=keep)).as_dict()
        assert json.loads(json.dumps(found)) == found
        for protocol in ("linear", "knn"):
            one = found[protocol]
            assert (one["accuracy"], one["kept"], one["chosen_on"]) == (1.0, words, "train")
            assert one["best"] in one["grid"]
    whole = probe(nano, replace(config, controls=["shuffled"], keep="time"))
    assert whole.controls["shuffled"]["linear"].accuracy < 1.0
    assert probe(nano, config).results["linear"].kept == "mean"


def test_what_is_stored_is_the_same_with_and_without_tokens(
    nano: FrozenEncoder, small: ProbeConfig
) -> None:
    lists = read_lists(small)
    for keep in ("time", "time+space"):
        config = replace(small, keep=keep)
        with_tokens = stored_features(nano, lists, "test", config)
        alone = stored_features(nano, lists, "test", replace(config, protocols=["knn"]))
        assert alone.tokens is None
        torch.testing.assert_close(with_tokens.means, alone.means, atol=1e-3, rtol=1e-3)
    plain = stored_features(nano, lists, "test", small).means
    assert with_tokens.means.shape[-1] == 8 * plain.shape[-1]


def test_a_mean_over_all_is_taken_from_that_at_each_time(
    nano: FrozenEncoder, small: ProbeConfig, tmp_path: Path
) -> None:
    lists = read_lists(small)
    direct = stored_features(nano, lists, "test", replace(small, protocols=["knn"])).means
    config = replace(small, protocols=["knn"], cache=str(tmp_path / "other"))
    stored_features(nano, lists, "test", replace(config, keep="time"))
    seen: list[int] = []
    found = stored_features(
        nano, lists, "test", config, progress=lambda title, done, of: seen.append(done)
    )
    assert not seen  # nothing was encoded
    torch.testing.assert_close(found.means, direct)


def test_dimension_and_penalty_are_chosen_on_other_videos() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 100, generator=generator)
    features[:, :3] += 3 * torch.eye(3)[labels]
    test = features[40:, None]
    wrong = (labels[40:] + 1) % 3
    for protocol, tried in (("linear", 10), ("knn", 2)):
        given = protocol, features[:40], labels[:40], test
        found, points, best = chosen_predictions(*given, (test, labels[40:]), 0)
        assert best is not None
        assert len(points) == tried
        assert {point.dimension for point in points} == {32, 40}
        accuracies = [point.accuracy for point in points]
        assert best == accuracies.index(max(accuracies))
        assert (found == labels[40:]).double().mean().item() == pytest.approx(accuracies[best])
        misled, others, worst = chosen_predictions(*given, (test, wrong), 0)
        assert worst is not None
        assert others[worst].accuracy == (misled == wrong).double().mean()
        # Without a list to choose on, the test videos play no part in the choice.
        first, second = (chosen_predictions(*given[:3], views, None, 0) for views in (test, -test))
        assert first[1:] == second[1:]


def test_nothing_is_chosen_where_no_class_has_two_videos() -> None:
    features = torch.eye(3)
    found, points, best = chosen_predictions(
        "linear", features, torch.arange(3), features[:, None], None, 0
    )
    assert found.tolist() == [0, 1, 2]
    assert (points, best) == ([], None)


def test_components_are_principal() -> None:
    train = torch.randn(30, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, same = components(train, train[:, None], 0)
    torch.testing.assert_close(found, same[:, 0])
    standard = (train - train.mean(0)) / train.std(0)
    variances = torch.linalg.eigvalsh(standard.T @ standard / 29).flip(0)
    torch.testing.assert_close(found.var(0), variances / variances.mean())
