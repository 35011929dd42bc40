"""Mahalanobis distance of a clip's pooled network features to the cries of training (Lee et al. 2018, arXiv 1807.03888).

One Gaussian per class with its own mean and one covariance for all. A clip's distance is the squared one to the nearest class
(the paper's confidence M(x), equation 2, with its sign turned). The covariance is shrunk (Ledoit and Wolf 2004): a fold holds a
few hundred cries, not many more than the features have dimensions.

The fit needs sums over clips alone (per class the count and the sum, and one D × D scatter), so a federation could make it; what
follows takes all training features together, as the comparison's easier job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.errors import DataError
from models.frames import TRAIN, SiteFrames
from models.metrics import Floats, Ints
from models.network import CryNet
from models.predict import clip_rows, frame_tokens


@dataclass(frozen=True)
class ClassGaussians:
    """Class-conditional Gaussians: `classes` (C,), `mean` (C, D), shared `covariance` (D, D), `shrinkage` in [0, 1]."""

    classes: Ints
    mean: Floats
    covariance: Floats
    shrinkage: float

    def distance(self, features: npt.ArrayLike) -> Floats:
        """Squared Mahalanobis distance (n,) of features (n, D) to the nearest class.

        Raises:
            DataError: features of another width.
        """
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or x.shape[1] != self.mean.shape[1]:
            raise DataError(f"features are {x.shape}, the Gaussians were fitted on (n, {self.mean.shape[1]})")
        # with Σ = L·Lᵀ the distance is the Euclidean one between L⁻¹x and L⁻¹μ: no inverse is formed
        lower = np.linalg.cholesky(self.covariance)
        white, centre = np.linalg.solve(lower, x.T).T, np.linalg.solve(lower, self.mean.T).T
        return np.asarray(np.stack([((white - c) ** 2).sum(1) for c in centre], 1).min(1))


def ledoit_wolf(centred: npt.ArrayLike) -> tuple[Floats, float]:
    """Covariance of centred rows (n, D), shrunk towards a multiple of the identity, and how far: in [0, 1].

    Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional covariance matrices"; divisor n.
    """
    x = np.asarray(centred, np.float64)
    n, d = x.shape
    sample = x.T @ x / n
    scale = np.trace(sample) / d
    apart = ((sample - scale * np.eye(d)) ** 2).sum()
    noise = (((x**2).sum(1) ** 2).sum() / n - (sample**2).sum()) / n
    shrinkage = float(min(noise, apart) / apart) if apart > 0 else 1.0
    return (1 - shrinkage) * sample + shrinkage * scale * np.eye(d), shrinkage


def fit_gaussians(features: npt.ArrayLike, classes: npt.ArrayLike) -> ClassGaussians:
    """Fit on training clips only.

    Args:
        features: (n, D) pooled features of training cries.
        classes: (n,) integers; any value is a class, so cries without a known reason (−1) are one too.

    Raises:
        DataError: too few rows, shapes that do not agree, a number that is not finite, or features that do not vary.
    """
    x, y = np.asarray(features, np.float64), np.asarray(classes, np.int64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise DataError(f"features are {x.shape} and classes {y.shape}; (n, D) and (n,) are needed")
    if not np.isfinite(x).all():
        raise DataError("training features hold NaN or infinity; look for a clip without frames")
    names, member = np.unique(y, return_inverse=True)
    if len(x) <= names.size:
        raise DataError(
            f"{len(x)} training clips of {names.size} classes leave nothing to estimate a covariance from"
        )
    mean = np.stack([x[member == k].mean(0) for k in range(names.size)])
    covariance, shrinkage = ledoit_wolf(x - mean[member])
    if not np.trace(covariance) > 0:
        raise DataError("training features do not vary within any class")
    return ClassGaussians(names, mean, covariance, shrinkage)


def clip_features(
    net: CryNet, frames: SiteFrames, tokens: npt.NDArray[np.floating] | None = None, batch: int = 256
) -> Floats:
    """Pooled features (R, D) of every (clip, view): the mean of `CryNet.features` over its frames.

    Rows are those of `models.predict.predict` for the same frames, in the same order.

    Args:
        net: the network, with the adapters that are to be judged.
        frames: one site's frames.
        tokens: their cached tokens (N, L, D), if there are any.
        batch: frames computed at once.
    """
    front = frame_tokens(net, frames.log_mel) if tokens is None else tokens
    out = np.empty((len(front), net.cfg.d_model), np.float32)
    net.eval()
    with torch.inference_mode():
        for i in range(0, len(front), batch):
            out[i : i + batch] = net.features(
                torch.from_numpy(front[i : i + batch].astype(np.float32))
            ).numpy()
    return clip_rows(frames.clip, frames.view).mean(out)


def site_distances(
    net: CryNet,
    sites: Sequence[SiteFrames],
    tokens: Mapping[str, npt.NDArray[np.floating]] | None = None,
) -> dict[str, Floats]:
    """Distances (R,) of every (clip, view) of every site under Gaussians fitted on all sites' training cries as recorded.

    Args:
        net: one fold's network.
        sites: that fold's frames; `part` says which clips it was trained on.
        tokens: cached tokens by site.

    Returns:
        Site → distances, in the order of `models.predict.predict`.

    Raises:
        DataError: the training part has too few cries.
    """
    features = {f.site: clip_features(net, f, (tokens or {}).get(f.site)) for f in sites}
    x, y = [], []
    for f in sites:
        rows = clip_rows(f.clip, f.view)
        use = (rows.view == 0) & (f.part[rows.clip] == TRAIN) & (f.gate[rows.clip] == 1)
        x.append(features[f.site][use])
        y.append(f.reason[rows.clip][use])
    gaussians = fit_gaussians(
        np.concatenate(x) if x else np.zeros((0, net.cfg.d_model)), np.concatenate(y) if y else []
    )
    return {site: gaussians.distance(rows) for site, rows in features.items()}
