from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from salt_plugin.batch import Batch
from salt_plugin.evaluation.probes import linear_predictions, linear_probe
from salt_plugin.methods import FineTune, Recipe
from salt_plugin.models import EncoderShape, Head, VideoClassifier, VideoEncoder
from salt_plugin.shapes import HeadShape

SHAPE = EncoderShape("small", 48, 3, 3, patch_size=8)
WITH_CLS = EncoderShape("cls", 48, 2, 3, patch_size=8, cls_token=True)
GRID = (2, 3, 3)


def method(pool: str = "time", shape: EncoderShape = SHAPE, **options: float) -> FineTune:
    torch.manual_seed(0)
    head = Head(shape, HeadShape(pool, classes=5, frames=2))
    nn.init.normal_(next(head.parameters()))  # so that logits differ
    return FineTune(VideoEncoder(shape), head, Recipe(10, lr=0.1, warmup_steps=2), **options).eval()


def batch(clips: int = 6, first: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(clips, 3, 4, 24, 24, generator=generator)
    labels = torch.randint(5, (clips,), generator=generator)
    return Batch(x[first:], labels[first:], [], step=3, seed=7, slot=first)


@pytest.mark.parametrize("pool", ["mean", "time", "attentive"])
@pytest.mark.parametrize("shape", [SHAPE, WITH_CLS])
def test_the_loss_is_the_smoothed_cross_entropy_of_what_is_pooled(
    pool: str, shape: EncoderShape
) -> None:
    model, given = method(pool, shape, label_smoothing=0.2), batch()
    tokens_bnd = model.encoder(given.clips)
    places_bnd = tokens_bnd[:, int(shape.cls_token) :]
    features = {
        "mean": tokens_bnd[:, 0] if shape.cls_token else places_bnd.mean(1),
        "time": torch.cat([places_bnd[:, :9].mean(1), places_bnd[:, 9:].mean(1)], dim=1),
        "attentive": tokens_bnd,
    }
    expected = LabelSmoothingCrossEntropy(0.2)(model.head.classifier(features[pool]), given.labels)
    torch.testing.assert_close(model(given), expected)


def test_time_tells_the_order_of_frames_and_no_places_and_the_mean_tells_neither() -> None:
    tokens_bnd = torch.randn(2, 18, 48)
    backwards = tokens_bnd.unflatten(1, (2, 9)).flip(1).flatten(1, 2)
    mirrored = tokens_bnd.unflatten(1, GRID).flip(3).flatten(1, 3)
    time, mean = method("time").head, method("mean").head
    torch.testing.assert_close(mean(backwards), mean(tokens_bnd))
    torch.testing.assert_close(time(mirrored), time(tokens_bnd))
    assert (time(backwards) - time(tokens_bnd)).abs().max() > 0.1


def test_mixup_is_timms_of_each_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = method(mixup=0.8, label_smoothing=0.1), batch(5)
    clips, targets = model.mixed(given)
    shares = [np.random.default_rng((7, 3, first, 0x6D697875)).beta(0.8, 0.8) for first in (0, 2)]
    theirs = Mixup(mixup_alpha=0.8, label_smoothing=0.1, num_classes=5)
    for first, share in zip((0, 2), shares, strict=True):
        monkeypatch.setattr(theirs, "_params_per_batch", lambda share=share: (share, False))
        pair = slice(first, first + 2)
        x, y = theirs(given.clips[pair].clone(), given.labels[pair])
        torch.testing.assert_close(clips[pair], x)
        torch.testing.assert_close(targets[pair], y)
    assert torch.equal(clips[4], given.clips[4])
    assert torch.equal(given.clips, batch(5).clips)  # not changed in place


def test_micro_batches_of_pairs_train_as_the_whole_does() -> None:
    model = method(mixup=0.8, label_smoothing=0.1)
    whole, last = batch(), batch(first=4)
    first = whole._replace(clips=whole.clips[:4], labels=whole.labels[:4])
    loss = (4 * model(first) + 2 * model(last)) / 6
    torch.testing.assert_close(loss, model(whole))


def test_layer_decay_is_timms() -> None:
    model, theirs = method(layer_decay=0.5), VideoClassifier(SHAPE, num_classes=5)
    groups = param_groups_layer_decay(theirs, 0.05, layer_decay=0.5)
    scale_of = {one: group["lr_scale"] for group in groups for one in group["params"]}
    expected = {name: scale_of[one] for name, one in theirs.named_parameters()}

    optimizer = model.optimizer()
    model.recipe.apply(optimizer, 3)
    rate = model.recipe.lr_at(3)
    rate_of = {one: group["lr"] for group in optimizer.param_groups for one in group["params"]}
    found = {
        name.removeprefix("encoder.").replace("head.classifier", "head"): rate_of[one] / rate
        for name, one in model.named_parameters()
    }
    assert found == pytest.approx(expected)
    assert set(found.values()) == {1.0, 0.5, 0.25, 0.125, 0.0625}
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"decay": model.recipe.weight_decay_at(3), "no_decay": 0.0}
    # The first group, whose rate is logged, has the whole one.
    assert optimizer.param_groups[0]["lr"] == rate


def test_one_rate_is_two_groups_as_of_other_methods() -> None:
    names: list[str] = [group["name"] for group in method().optimizer().param_groups]
    assert names == ["decay", "no_decay"]


def test_uint8_clips_are_normalised() -> None:
    model, given = method(), batch()
    x: Tensor = torch.randint(256, given.clips.shape, dtype=torch.uint8)
    given = given._replace(clips=x)
    torch.testing.assert_close(model(given), model(given._replace(clips=given.normalized())))


@pytest.mark.parametrize("classes", [2, 4])
def test_a_warm_start_predicts_as_the_linear_probe_does(classes: int) -> None:
    torch.manual_seed(2)
    labels_n = torch.arange(60) % classes
    features_nf = 3 * torch.randn(60, 8) + torch.randn(classes, 8)[labels_n] + 5
    others = 3 * torch.randn(50, 8) + 5
    head = Head(EncoderShape("one", 8, 1, 1), HeadShape("mean", classes))
    head.start_as(*linear_probe(features_nf, labels_n, classes))
    found = head(others[:, None]).argmax(1)
    assert torch.equal(found, linear_predictions(features_nf, labels_n, others[:, None]))
    assert len(found.unique()) == classes
