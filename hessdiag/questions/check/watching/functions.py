"""What is known of torch's functions by their names: nonlinearities, normalizations, and what only changes the form."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# Each nonlinearity of one entry, by every name that torch calls it by.
ACTIVATIONS = {
    **{name: name for name in ("relu", "tanh", "sigmoid", "gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu")},
    **{name: name for name in ("prelu", "rrelu", "softplus", "hardtanh", "relu6", "hardsigmoid", "hardswish", "glu")},
    **{name: name for name in ("softmax", "log_softmax", "logsigmoid", "softsign", "softmin", "gumbel_softmax")},
    "relu_": "relu",
    "tanh_": "tanh",
    "sigmoid_": "sigmoid",
    "elu_": "elu",
    "selu_": "selu",
    "celu_": "celu",
    "leaky_relu_": "leaky_relu",
    "rrelu_": "rrelu",
    "hardtanh_": "hardtanh",
    "special_expit": "sigmoid",
    "swish": "silu",
    "silu_": "silu",
    "hardswish_": "hardswish",
    "log_sigmoid": "logsigmoid",
    "expit": "sigmoid",
    "special_softmax": "softmax",
    "special_log_softmax": "log_softmax",
    "sin": "sin",
    "cos": "cos",
    "erf": "erf",
    "threshold": "relu",
    "threshold_": "relu",
}
_CLAMPS = ("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_")

# Below this input the slope stays under a hundredth of the greatest, and nothing comes back. Negative infinity: only
# exact zeros.
DEAD_BELOW = {
    "relu": -math.inf,
    "relu6": -math.inf,
    "hardswish": -3.0,
    "gelu": -3.02,  # where Phi(x) + x phi(x), at most 1.129, is that small for the last time
    "silu": -6.14,  # likewise s(x) (1 + x (1 - s(x))), at most 1.0998
    "mish": -6.16,
    "elu": math.log(0.01),
    "celu": math.log(0.01),
    "selu": math.log(0.01),
    "softplus": math.log(0.01 / 0.99),
}

# A bounded nonlinearity has less than a hundredth of its greatest slope where its output lies outside of this.
LINEAR_WITHIN = {
    "tanh": (-math.sqrt(0.99), math.sqrt(0.99)),
    "erf": (-0.9976, 0.9976),
    "sigmoid": ((1 - math.sqrt(0.99)) / 2, (1 + math.sqrt(0.99)) / 2),
    "softsign": (-0.9, 0.9),
}

NORMS = re.compile(r"^(native_)?(batch|layer|group|instance|rms)_norm|^normalize$|^local_response_norm$")
PRODUCTS = re.compile(r"linear|conv|mm|mul_?mat|matmul|mv|^dot$|einsum|tensordot|embedding|lstm|gru|rnn|attention")
RIGHT_PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "__matmul__")
ADDITIONS = ("add", "add_", "__add__", "__radd__", "__iadd__", "iadd")
SCALINGS = ("mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "true_divide", *ADDITIONS)
FORMS = re.compile(
    r"^(view|view_as|reshape|reshape_as|flatten|unflatten|permute|transpose|transpose_|t|movedim|moveaxis|swapaxes"
    r"|squeeze|squeeze_|unsqueeze|unsqueeze_|contiguous|to|float|double|half|bfloat16|type|type_as|clone|__get__"
    r"|expand|expand_as|repeat|chunk|split|tensor_split|unbind|__getitem__|select|narrow|channel_shuffle"
    r"|pixel_shuffle|unfold|fold|pad|cuda|cpu|requires_grad_|detach|detach_"
    r"|(feature_|alpha_|feature_alpha_)?dropout[123]?d?_?|feature_alpha_dropout)$"
)


def activation(
    name: str, args: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[str | None, tuple[float, float] | None]:
    """The nonlinearity that a call of a function is, and between which outputs it has a slope, where it is told.

    >>> activation("clamp", [None], {"min": 0.0}), activation("hardtanh", [None, 0.0, 6.0], {})
    (('relu', None), ('relu6', (0.0, 6.0)))
    """
    found = ACTIVATIONS.get(name)
    if found == "relu6":
        return found, (0.0, 6.0)
    if found == "hardsigmoid":
        return found, (0.0, 1.0)
    if found != "hardtanh" and name not in _CLAMPS:
        return found, None
    usual = (-1.0, 1.0) if found else (None, None)
    low, high = (
        keywords.get(names[0], keywords.get(names[1], args[place] if len(args) > place else usual[place - 1]))
        for place, names in ((1, ("min", "min_val")), (2, ("max", "max_val")))
    )
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return ("relu6" if low == 0 else "hardtanh"), (float(low), float(high))
    return ("relu" if isinstance(low, (int, float)) and low == 0 and high is None else None), None


def recognised(taken: Tensor, put: Tensor) -> str | None:
    """The nonlinearity that gives one row of numbers for another, within a hundredth of the largest; the closest one.

    >>> x = torch.linspace(-4, 4, 50)
    >>> recognised(x, 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))))
    'gelu'
    """
    x, y = taken.double(), put.double()
    if not bool(x.isfinite().all() & y.isfinite().all()) or len(x) < _FEW:
        return None
    apart = {name: float((function(x) - y).abs().max()) for name, function in _BY_HAND.items()}
    closest = min(apart, key=lambda name: apart[name])
    return closest if apart[closest] <= _APART * float(y.abs().max()) else None


_FEW = 16  # numbers, by which nothing is recognised
_APART = 0.01
_BY_HAND: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "mish": F.mish,
}
