"""How many directions features use, and how far they vary."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(features_nd: Tensor) -> float:
    """Returns RankMe: the exponential of the entropy of the normalised singular values.

    It lies between 1 and min(N, D), and is that where all singular values are equal; 0 where all
    features are zero. As published (Garrido et al., *RankMe*, ICML 2023, arXiv 2210.02885), the
    mean is not taken off, so a large common offset counts as one strong direction.

    Args:
        features_nd: Features, float [N, D]; N well above D, or N limits the rank.
    """
    singular = torch.linalg.svdvals(features_nd.double())
    total = singular.sum()
    if total == 0:
        return 0.0
    shares = singular / total
    return torch.special.entr(shares).sum().exp().item()


def spread(features_nd: Tensor) -> float:
    """Returns the standard deviation of a feature over the samples, as a mean over features.

    It is 0 where an encoder gives the same features for everything.

    Args:
        features_nd: Features, float [N, D], N at least 2.
    """
    return features_nd.double().std(0).mean().item()
