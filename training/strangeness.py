"""How unlike the training images an image is: the out-of-distribution score that ships with a bundle.

The score is a Mahalanobis distance (Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples
and Adversarial Attacks", NeurIPS 2018) of what the network sees half-way, ``graph_outputs.MIDDLE``, to one Gaussian
over all training images (the background of Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD
Detection", 2021), its covariance shrunk as in Ledoit and Wolf, "A well-conditioned estimator for large-dimensional
covariance matrices" (2004). Half-way, because the features before the head forget, as training goes on, whatever does
not tell the seven diagnoses apart; docs/adr/0002 has the comparison.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

METHOD = (
    "Mahalanobis distance of the channel means after the fifth stage to those of the training images (one Gaussian, "
    "shrunk covariance), as a root mean square: about 1 for an average training image"
)


def whitening(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The kernel ``(d, d)`` and bias ``(d,)`` that make the score of features their length, from ``features (n, d)``.

    The mean of the squared scores of ``features`` is 1, but for the shrinkage.
    """
    wide = features.astype(np.float64)
    centre = wide.mean(axis=0)
    covariance, _ = ledoit_wolf(wide - centre, assume_centered=True)
    kernel = np.linalg.cholesky(np.linalg.inv(covariance)) / np.sqrt(len(centre))
    return kernel, -centre @ kernel
