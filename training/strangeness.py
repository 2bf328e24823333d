"""Fits the out-of-distribution score of a bundle: how unlike the training images an image is.

The score is the Mahalanobis distance (Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples
and Adversarial Attacks", NeurIPS 2018) of the features ``graph_outputs.MIDDLE`` to one Gaussian over all training
images (the background model of Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
2021). Its covariance is shrunk as in Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
matrices" (2004). The features come from the middle of the network: during training, the features before the head lose
all that does not distinguish the seven diagnoses. docs/adr/0002 has the comparison.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

METHOD = (
    "Mahalanobis distance of the channel means after the fifth stage to those of the training images (one Gaussian, "
    "shrunk covariance), as a root mean square: about 1 for an average training image"
)


def fit_whitening(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a kernel ``(d, d)`` and bias ``(d,)`` to ``features (n, d)``; the norm of mapped features is their score.

    Apart from the effect of shrinkage, the mean of the squared scores of ``features`` is 1.
    """
    wide = features.astype(np.float64)
    centre = wide.mean(axis=0)
    covariance, _ = ledoit_wolf(wide - centre, assume_centered=True)
    kernel = np.linalg.cholesky(np.linalg.inv(covariance)) / np.sqrt(len(centre))
    return kernel, -centre @ kernel
