"""The multilayer perceptron of the papers: depth L counts weight matrices, the output is linear."""

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import default_init, draw
from hessdiag.nets.mup import start_small
from hessdiag.nets.network import Network, activation_layer, check_sizes, seeded, uninitialized
from hessdiag.nets.residual import stack


class MLP(Network):
    """Fully connected network: a_l = W_l h_{l-1}, h_l = phi(a_l), and a linear output a_L.

    Weight matrices are the children `0`, `2`, `4`, ..., with the activation between them, unless there is normalization
    or skip connections (Vanishing Curvature, Figure 17).

    Args:
        depth: Number L of weight matrices.
        width: Of the hidden layers.
        in_features: Of the input; `width` by default, as in the papers' square networks.
        out_features: Of the output; `width` by default.
        activation: A key of `hessdiag.nets.network.MODULES`.
        init: A key of `hessdiag.nets.INITS`; by default `he_uniform` for ReLU and `xavier_uniform` otherwise.
        bias: Whether layers have biases, which start at zero.
        seed: Of the weights; `None` takes torch's global random state.
        dtype: Of the parameters.
        batchnorm: Normalize each hidden layer over the batch, before its activation.
        residual: Skip connections over three hidden layers at a time, from the second on.
        parametrization: "standard", or "mup", in which the output layer starts smaller by sqrt(base_width / width), and
            each tensor has its own learning rate (`hessdiag.nets.mup`; `hessdiag transfer` makes them).
        base_width: The width at which the two start alike; 1 is the table of the paper.

    Raises:
        SpecError: if the activation, the initialization or the parametrization is unknown, or a size is below 1.

    >>> net = MLP(depth=3, width=4, in_features=2, out_features=1, activation="tanh", seed=0)
    >>> [tuple(parameter.shape) for parameter in net.parameters()]
    [(4, 2), (4, 4), (1, 4)]
    """

    def __init__(
        self,
        depth: int = 4,
        width: int = 32,
        in_features: int | None = None,
        out_features: int | None = None,
        activation: str = "relu",
        init: str | None = None,
        bias: bool = False,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
        batchnorm: bool = False,
        residual: bool = False,
        parametrization: str = "standard",
        base_width: int = 1,
    ) -> None:
        layer_of = activation_layer(activation)
        ends = in_features or width, out_features or width
        if min(depth, width, *ends) < 1:
            raise SpecError(
                f"depth and widths of an MLP must be at least 1, not depth={depth}, width={width}, ends {ends}."
            )
        inner = (ends[0] + ends[1]) * width + (depth - 2) * width**2 if depth > 1 else ends[0] * ends[1]
        check_sizes(depth, inner, dtype, depth="depth", width=("width", width))
        sizes = [ends[0], *[width] * (depth - 1), ends[1]]
        generator = seeded(seed)
        layers: list[nn.Linear] = []
        for fan_in, fan_out in pairwise(sizes):
            layer = uninitialized(fan_in, fan_out, bias=bias, dtype=dtype)
            with torch.no_grad():
                layer.weight.copy_(draw(init or default_init(activation), (fan_out, fan_in), generator=generator))
                if bias:
                    layer.bias.zero_()
            layers.append(layer)
        if depth > 1:
            start_small(layers[-1], parametrization, base_width)
        normalization = partial(nn.BatchNorm1d, width, dtype=dtype) if batchnorm else None
        super().__init__(*stack(layers, layer_of, normalization, residual=residual))
        self.parametrization = parametrization
