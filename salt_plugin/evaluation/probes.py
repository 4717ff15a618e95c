"""Probes on fixed features: what can be read off them by a weighted vote or a linear map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

KNN_K = 20
KNN_TEMPERATURE = 0.1
LINEAR_C = 1.0

# Tried where more than one mean is kept: components, and inverse strengths of the L2 penalty.
DIMENSIONS = (32, 128, 512)
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
FOLDS = 5


class ReadoutPoint(NamedTuple):
    """One setting of a probe on kept features.

    Attributes:
        dimension: Principal components that it reads.
        regularization: scikit-learn's C of the logistic regression; None for k-NN.
        accuracy: On the videos used for choosing.
    """

    dimension: int
    regularization: float | None
    accuracy: float


def knn_accuracy(train_nd: Tensor, train_n: Tensor, test_nd: Tensor, test_n: Tensor) -> float:
    """Accuracy of the host's weighted k-nearest-neighbour vote (k = 20, cosine, T = 0.1).

    Args:
        train_nd: Features to vote with, float [N, D].
        train_n: Their labels, int64 [N].
        test_nd: Features to classify, float [M, D].
        test_n: Their labels, int64 [M].
    """
    return (knn_predictions(train_nd, train_n, test_nd) == test_n).float().mean().item()


def linear_accuracy(train_nd: Tensor, train_n: Tensor, test_nd: Tensor, test_n: Tensor) -> float:
    """Accuracy of multinomial logistic regression (L2, C = 1); arguments as `knn_accuracy`."""
    predicted = linear_predictions(train_nd, train_n, test_nd[:, None])
    return (predicted == test_n).double().mean().item()


def knn_predictions(train_nd: Tensor, train_n: Tensor, test_nd: Tensor) -> Tensor:
    """Returns the labels, int64 [M], that the vote gives; arguments as `knn_accuracy`."""
    return _vote(*_standardised(train_nd, test_nd), train_n)


def _vote(train: Tensor, test: Tensor, train_n: Tensor) -> Tensor:
    ranked = knn_predict(
        F.normalize(test, dim=1),
        F.normalize(train, dim=1).T.contiguous(),
        train_n,
        num_classes=int(train_n.max()) + 1,
        knn_k=min(KNN_K, len(train_n)),
        knn_t=KNN_TEMPERATURE,
    )
    return ranked[:, 0]


def linear_predictions(train_nd: Tensor, train_n: Tensor, test_mvd: Tensor) -> Tensor:
    """Returns the labels, int64 [M], of the regression's softmax averaged over views [M, V, D]."""
    return _regression(*_standardised(train_nd, test_mvd), train_n, LINEAR_C)


def _regression(train: Tensor, test: Tensor, train_n: Tensor, strength: float) -> Tensor:
    classifier = _fitted(train, train_n, strength)
    shares = classifier.predict_proba(test.flatten(0, 1).numpy())
    best = shares.reshape(*test.shape[:2], -1).mean(1).argmax(1)
    return torch.from_numpy(classifier.classes_[best])


def _fitted(train: Tensor, train_n: Tensor, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=2000).fit(train.numpy(), train_n.numpy())


def linear_probe(train_nd: Tensor, train_n: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Returns weights [C, D] and biases [C] of the regression of `linear_predictions`.

    Args:
        train_nd: Features to learn from, float [N, D], not standardised.
        train_n: Their labels, int64 [N], each of 0 to C - 1 at least once.
        classes: C.
    """
    mean, std = _moments(train_nd)
    fitted = _fitted((train_nd - mean) / std, train_n, LINEAR_C)
    weight_cd = torch.from_numpy(fitted.coef_).float()
    bias_c = torch.from_numpy(fitted.intercept_).float()
    if classes == 2:  # sklearn gives the second class's alone, over the first's
        weight_cd, bias_c = (torch.cat((torch.zeros_like(x), x)) for x in (weight_cd, bias_c))
    weight_cd = weight_cd / std
    return weight_cd, bias_c - weight_cd @ mean


def chosen_predictions(
    protocol: str,
    train_nd: Tensor,
    train_n: Tensor,
    test_mvd: Tensor,
    choose: tuple[Tensor, Tensor] | None,
    seed: int,
) -> tuple[Tensor, list[ReadoutPoint], int | None]:
    """Predicts from principal components, whose number is chosen, as is a penalty's strength.

    Args:
        protocol: `linear` or `knn`.
        train_nd: Features to learn from, float [N, D].
        train_n: Their labels, int64 [N].
        test_mvd: Features to classify, float [M, V, D].
        choose: Features and labels to choose by, of the kinds of `test_mvd` and `train_n`. None: a
            fifth of each class of those to learn from, which the others predict; the probe then
            learns from all.
        seed: Of that split, and of the components.

    Returns:
        Labels, int64 [M]; what was tried, and the place of the best, of equal ones the first: the
        fewest components, the strongest penalty. None and nothing where no class has two videos.
    """
    strengths: Sequence[float | None] = STRENGTHS if protocol == "linear" else (None,)

    def predictions(fit: Tensor, labels: Tensor, views_mvd: Tensor, point: ReadoutPoint) -> Tensor:
        train, test = fit[:, : point.dimension], views_mvd[..., : point.dimension]
        if point.regularization is None:
            return _vote(train, test.mean(1), labels)
        return _regression(train, test, labels, point.regularization)

    held_n = held_out(train_n, seed)
    if choose is None and held_n.any():
        fit_nd, fit_n = train_nd[~held_n], train_n[~held_n]
        choose = train_nd[held_n][:, None], train_n[held_n]
    else:
        fit_nd, fit_n = train_nd, train_n
    points: list[ReadoutPoint] = []
    if choose is not None:
        fit, views = components(fit_nd, choose[0], seed)
        most = fit.shape[1]
        for dimension in sorted({min(one, most) for one in DIMENSIONS}):
            for strength in strengths:
                point = ReadoutPoint(dimension, strength, 0.0)
                right_m = predictions(fit, fit_n, views, point) == choose[1]
                points.append(point._replace(accuracy=right_m.double().mean().item()))
    best = max(range(len(points)), key=lambda i: points[i].accuracy, default=None)
    train, test = components(train_nd, test_mvd, seed)
    default = ReadoutPoint(train.shape[1], LINEAR_C if protocol == "linear" else None, 0.0)
    point = default if best is None else points[best]
    return predictions(train, train_n, test, point), points, best


def components(train_nd: Tensor, test: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the principal components of standardised features, at most as many as are tried.

    All are divided by one number, so that their mean variance is 1. They are not whitened, for the
    far ones hold noise.

    Args:
        train_nd: Whose components they are, float [N, D].
        test: Also in these components, float [..., D].
        seed: Of a randomised search for them, which scikit-learn takes where it is faster.
    """
    train, test = _standardised(train_nd, test)
    most = min(DIMENSIONS[-1], *train.shape)
    pca = PCA(most, random_state=seed).fit(train.numpy())
    parts = [torch.from_numpy(pca.transform(x.flatten(0, -2).numpy())) for x in (train, test)]
    scale = parts[0].var(0).mean().sqrt().clamp_min(torch.finfo(torch.float32).eps)
    return parts[0] / scale, (parts[1] / scale).reshape(*test.shape[:-1], most)


def held_out(labels_n: Tensor, seed: int) -> Tensor:
    """Returns bool [n]: a fifth of each class, one at least where it has two."""
    order = torch.randperm(len(labels_n), generator=torch.Generator().manual_seed(seed))
    held = torch.zeros(len(labels_n), dtype=torch.bool)
    for label in labels_n.unique():
        held[order[labels_n[order] == label][1::FOLDS]] = True
    return held


def _moments(train_nd: Tensor) -> tuple[Tensor, Tensor]:
    return train_nd.mean(0), train_nd.std(0).clamp_min(torch.finfo(torch.float32).eps)


def _standardised(train_nd: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = _moments(train_nd)
    return (train_nd - mean) / std, (test - mean) / std
