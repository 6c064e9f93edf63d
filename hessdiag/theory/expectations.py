"""Exact expectations of squared gradient norms, Hessian block norms and the trace of a random network.

One sample x with target y, loss `||z - y||^2 / 2`, `z = W_L h_{L-1}` with linear output and no biases, hidden
activations of slope 1 above zero and `slope` below. Each quantity splits into a part that the targets cause,
which needs only second moments of the weights and so holds for any symmetric law, and a part of the network's
own output, which is exact for Gaussian weights. Second-order multilinear structure as in Orvieto et al.,
"Vanishing Curvature in Randomly Initialized Deep ReLU Networks" (AISTATS 2022); derivation:
docs/concepts/theory.md.

Expectations of squared norms are ruled by rare networks; dead ReLU networks count with their zero. For
typical values see `gaussian_nets`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hessdiag.errors import SpecError
from hessdiag.theory.gaussian_nets import gate_moments

Array = NDArray[np.float64]


class _Network(NamedTuple):
    """What the formulas need of a network, with index l = 1..L stored at l - 1."""

    fan_in: Array  # d_{l-1}
    fan_out: Array  # d_l
    variance: Array  # of the weights of layer l
    p: float
    p2: float

    @property
    def input2(self) -> Array:
        """`E||h_{l-1}||^2 / ||x||^2`."""
        return _running_product(self.p * self.fan_out * self.variance)

    @property
    def input4(self) -> Array:
        """`E||h_{l-1}||^4 / ||x||^4`, Gaussian weights."""
        d = self.fan_out
        return _running_product(self.variance**2 * (self.p**2 * d * (d - 1) + 3 * self.p2 * d))

    @property
    def backward2(self) -> Array:
        """`f_l = E||P_l^T u||^2 / ||u||^2` with `P_l = dz/da_l`."""
        return _running_product((self.p * self.variance * self.fan_in)[::-1])[::-1]

    @property
    def backward4(self) -> Array:
        """`E tr((P_l P_l^T)^2)`, Gaussian weights."""
        c = self.fan_out[-1]
        t, u = np.full(2, [c, c**2])
        traces = [t]
        for d, variance in zip(self.fan_in[:0:-1], self.variance[:0:-1], strict=True):
            t, u = self.step(t, u, d, variance)
            traces.append(t)
        return np.array(traces[::-1])

    def step(self, t: Array, u: Array, d: Array, variance: Array) -> tuple[Array, Array]:
        """`(E tr((MM^T)^2), E (tr MM^T)^2)` of `M W D` from those of M: W Gaussian, D with d gates."""
        same_gate = (self.p2 - self.p**2) * d * (u + 2 * t)
        return (
            variance**2 * (self.p**2 * (d * (d + 1) * t + d * u) + same_gate),
            variance**2 * (self.p**2 * (d**2 * u + 2 * d * t) + same_gate),
        )


def target_gradient_norm2(
    widths: ArrayLike, variances: ArrayLike, slope: float, x_norm2: float = 1.0, y_norm2: float = 1.0
) -> Array:
    """The targets' part of `E||df/dW_l||_F^2` (residual -y), for any symmetric law of the weights.

    With hidden width d, one variance and `rho = p d sigma^2` it is `rho^{L-1} ||x||^2 ||y||^2` in every
    layer. For a batch of N samples and a linear network, replace `||x||^2 ||y||^2` by `||Y^T X / N||_F^2`.

    Args:
        widths: (L+1,) widths d_0 .. d_L, from input to output.
        variances: Variance of a weight, for all layers or (L,) one by one.
        slope: Slope of the hidden activation below zero.
        x_norm2: `||x||^2`.
        y_norm2: `||y||^2`.

    Returns:
        (L,) expected squared norms of layers 1..L.

    Raises:
        SpecError: If a width or a variance is out of range, or the shapes do not agree.

    Example:
        >>> target_gradient_norm2([6, 6, 6, 3], 1 / 18, slope=1.0).round(6)
        array([0.111111, 0.111111, 0.111111])
    """
    net = _network(widths, variances, slope)
    return net.backward2 * net.input2 * x_norm2 * y_norm2


def target_block_norm2(
    widths: ArrayLike, variances: ArrayLike, slope: float, x_norm2: float = 1.0, y_norm2: float = 1.0
) -> Array:
    """The targets' part of `E||H_lm||_F^2`, for any symmetric law of the weights; zero on the diagonal.

    With hidden width d, one variance and `rho = p d sigma^2` it is `p d rho^{L-2} ||x||^2 ||y||^2` in every
    off-diagonal block.

    Args:
        widths: (L+1,) widths d_0 .. d_L, from input to output.
        variances: Variance of a weight, for all layers or (L,) one by one.
        slope: Slope of the hidden activation below zero.
        x_norm2: `||x||^2`.
        y_norm2: `||y||^2`.

    Returns:
        (L, L) symmetric matrix of expected squared block norms.

    Raises:
        SpecError: If a width or a variance is out of range, or the shapes do not agree.

    Example:
        >>> target_block_norm2([5, 5, 5, 2], 1 / 5, slope=1.0)
        array([[0., 5., 5.],
               [5., 0., 5.],
               [5., 5., 0.]])
    """
    net = _network(widths, variances, slope)
    lower, upper = np.triu_indices(net.fan_in.size, 1)  # l - 1 and m - 1
    # E||dh_{m-1}/da_l||_F^2 = p d_{m-1} prod_{l<k<m} p sigma_k^2 d_{k-1}; the product of logs spans any depth
    log_growth = np.append(0.0, np.cumsum(np.log(net.p * net.variance * net.fan_in)))
    between2 = net.p * net.fan_in[upper] * np.exp(log_growth[upper] - log_growth[lower + 1])
    return _symmetric(lower, upper, net.backward2[upper] * between2 * net.input2[lower], x_norm2 * y_norm2)


def expected_gradient_norm2(
    widths: ArrayLike, variances: ArrayLike, slope: float, x_norm2: float = 1.0, y_norm2: float = 1.0
) -> Array:
    """`E||df/dW_l||_F^2` of every layer, for Gaussian weights.

    The targets' part and the output's, `sigma_l^2 E tr((P_l P_l^T)^2) E||h_{l-1}||^4` with `P_l = dz/da_l`.

    Args:
        widths: (L+1,) widths d_0 .. d_L, from input to output.
        variances: Variance of a weight, for all layers or (L,) one by one.
        slope: Slope of the hidden activation below zero.
        x_norm2: `||x||^2`.
        y_norm2: `||y||^2`.

    Returns:
        (L,) expected squared norms of layers 1..L.

    Raises:
        SpecError: If a width or a variance is out of range, or the shapes do not agree.

    Example:
        >>> expected_gradient_norm2([5, 5, 5, 2], 1 / 5, slope=1.0)
        array([1.96 , 1.896, 1.784])
    """
    net = _network(widths, variances, slope)
    output_part = net.variance * net.backward4 * net.input4 * x_norm2**2
    return target_gradient_norm2(widths, variances, slope, x_norm2, y_norm2) + output_part


def expected_block_norm2(
    widths: ArrayLike, variances: ArrayLike, slope: float, x_norm2: float = 1.0, y_norm2: float = 1.0
) -> Array:
    """`E||H_lm||_F^2` of every layer block of the Hessian, for Gaussian weights.

    Diagonal blocks are Gauss-Newton blocks: `E tr((P_l P_l^T)^2) E||h_{l-1}||^4`. Off the diagonal, the
    targets' part, and twice
    `sigma_m^2 sigma_l^2 E tr((P_m P_m^T)^2) (E (tr CC^T)^2 + E tr((CC^T)^2)) E||h_{l-1}||^4` with
    `C = dh_{m-1}/da_l`: the Gauss-Newton part and the output's residual part, equal in size.

    Args:
        widths: (L+1,) widths d_0 .. d_L, from input to output.
        variances: Variance of a weight, for all layers or (L,) one by one.
        slope: Slope of the hidden activation below zero.
        x_norm2: `||x||^2`.
        y_norm2: `||y||^2`.

    Returns:
        (L, L) symmetric matrix of expected squared block norms.

    Raises:
        SpecError: If a width or a variance is out of range, or the shapes do not agree.

    Example:
        >>> expected_block_norm2([5, 5, 5, 2], 1 / 5, slope=1.0)
        array([[ 4.8 , 12.68, 11.08],
               [12.68,  4.48, 11.72],
               [11.08, 11.72,  3.92]])
    """
    net = _network(widths, variances, slope)
    depth = net.fan_in.size
    m = np.arange(1, depth)  # stored index of the upper layer; the lower one lies `distance` below
    d = net.fan_in[1:]
    t, u = net.p2 * d, net.p2 * d + net.p**2 * d * (d - 1)
    mixed = np.zeros((depth, depth))
    for distance in range(1, depth):
        if distance > 1:
            m = m[1:]
            layer = m - distance + 1
            t, u = net.step(t[1:], u[1:], net.fan_in[layer], net.variance[layer])
        mixed[m - distance, m] = t + u
    output_part = np.outer(net.variance * net.input4, net.variance * net.backward4) * 2 * mixed
    blocks: Array = np.diag(net.backward4 * net.input4) + output_part + output_part.T
    return target_block_norm2(widths, variances, slope, x_norm2, y_norm2) + blocks * x_norm2**2


def expected_trace(widths: ArrayLike, variances: ArrayLike, slope: float, x_norm2: float = 1.0) -> float:
    """`E tr H`, for any symmetric law of the weights.

    It is `c sum_l f_l E||h_{l-1}||^2` with c outputs and `f_l = prod_{k>l} p sigma_k^2 d_{k-1}`; with hidden
    width d, `L c rho^{L-1} ||x||^2`. The targets do not enter. For a batch with mean loss, pass the mean of
    `||x||^2`.

    Args:
        widths: (L+1,) widths d_0 .. d_L, from input to output.
        variances: Variance of a weight, for all layers or (L,) one by one.
        slope: Slope of the hidden activation below zero.
        x_norm2: `||x||^2`.

    Raises:
        SpecError: If a width or a variance is out of range, or the shapes do not agree.

    Example:
        >>> round(expected_trace([6, 6, 6, 6, 3], 1 / 18, slope=1.0), 6)
        0.444444
    """
    net = _network(widths, variances, slope)
    return float(net.fan_out[-1] * (net.backward2 * net.input2).sum() * x_norm2)


def _network(widths: ArrayLike, variances: ArrayLike, slope: float) -> _Network:
    widths = np.asarray(widths, dtype=np.float64)
    if widths.ndim != 1 or widths.size < 2 or np.any(widths < 1):
        raise SpecError(
            "The widths must be a list of 2 or more numbers, each at least 1.", "[d_0, ..., d_L], input first"
        )
    try:
        variances = np.broadcast_to(np.asarray(variances, dtype=np.float64), widths.size - 1)
    except ValueError:
        raise SpecError(f"Variances must be one number, or one per weight matrix ({widths.size - 1}).") from None
    if not np.all(variances > 0):
        raise SpecError(f"A weight variance is {variances.min():g}, but must be above 0.")
    return _Network(widths[:-1], widths[1:], variances, *gate_moments(slope))


def _running_product(growth: Array) -> Array:
    """Products of the first 0, 1, .., L-1 of L growth factors."""
    return np.append(1.0, np.cumprod(growth[:-1]))


def _symmetric(row: NDArray[np.intp], column: NDArray[np.intp], values: Array, scale: float) -> Array:
    """Symmetric matrix from the entries above its diagonal, times a scale."""
    size = int(column.max(initial=0)) + 1
    matrix = np.zeros((size, size))
    matrix[row, column] = matrix[column, row] = values * scale
    return matrix
