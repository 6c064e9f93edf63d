"""What zero padding costs a convolutional network: how the expected energy of an image shrinks from its borders.

With i.i.d. weights of variance 1 / (p c k^2), p the share of energy that the activation lets through, a layer keeps
the expected energy of an image, except for what its windows take from the padding. The expected energy at each pixel,
summed over channels, then follows e -> T e T' exactly, with T_ij = 1 / k where |i - j| <= (k - 1) / 2 and zero
elsewhere: each output pixel averages the energy of the k x k pixels under it, and those outside the image have none.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def padding_matrix(resolution: int, kernel: int = 3) -> Floats:
    """T, the average over a window along one side of the image, shape (resolution, resolution).

    Raises:
        ValueError: for a kernel that is even, or a size below 1.

    >>> (3 * padding_matrix(3)).round().tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """
    if resolution < 1 or kernel < 1 or kernel % 2 != 1:
        raise ValueError(f"need a resolution of at least 1 and an odd kernel, not {resolution} and {kernel}")
    places = np.arange(resolution)
    return np.where(np.abs(places[:, None] - places) <= kernel // 2, 1.0 / kernel, 0.0)


def zero_padding_decay(resolution: int, kernel: int = 3) -> float:
    """Factor by which zero padding multiplies the expected energy of a square image per layer, deep in the network.

    The square of the largest eigenvalue of T, once for each side of the image; for k = 3 that is
    ((1 + 2 cos(pi / (r + 1))) / 3)^2. Circular padding has the factor 1.

    >>> round(zero_padding_decay(7), 6), round(zero_padding_decay(32), 6)
    (0.901081, 0.993972)
    """
    return float(np.linalg.eigvalsh(padding_matrix(resolution, kernel))[-1] ** 2)
