"""Probes on fixed features: what can be read off them by a weighted vote or a linear map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict
from sklearn.linear_model import LogisticRegression
from torch import Tensor

KNN_K = 20
KNN_TEMPERATURE = 0.1


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
    train, test = _standardised(train_nd, test_nd)
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
    train, test = _standardised(train_nd, test_mvd)
    classifier = LogisticRegression(C=1.0, max_iter=2000).fit(train.numpy(), train_n.numpy())
    shares = classifier.predict_proba(test.flatten(0, 1).numpy())
    best = shares.reshape(*test_mvd.shape[:2], -1).mean(1).argmax(1)
    return torch.from_numpy(classifier.classes_[best])


def linear_probe(train_nd: Tensor, train_n: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Returns weights [C, D] and biases [C] of the regression of `linear_predictions`.

    Args:
        train_nd: Features to learn from, float [N, D], not standardised.
        train_n: Their labels, int64 [N], each of 0 to C - 1 at least once.
        classes: C.
    """
    train, _ = _standardised(train_nd, train_nd)
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit(train.numpy(), train_n.numpy())
    weight_cd = torch.from_numpy(fitted.coef_).float()
    bias_c = torch.from_numpy(fitted.intercept_).float()
    if classes == 2:  # sklearn gives the second class's alone, over the first's
        weight_cd, bias_c = (torch.cat((torch.zeros_like(x), x)) for x in (weight_cd, bias_c))
    mean, std = train_nd.mean(0), train_nd.std(0).clamp_min(torch.finfo(torch.float32).eps)
    weight_cd = weight_cd / std
    return weight_cd, bias_c - weight_cd @ mean


def _standardised(train_nd: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = train_nd.mean(0), train_nd.std(0).clamp_min(torch.finfo(torch.float32).eps)
    return (train_nd - mean) / std, (test - mean) / std
