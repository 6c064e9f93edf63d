"""Which losses are known for what they are: torch's own, recognised by being them and never by what they are called."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Kind = Literal[
    "ce", "nll", "mse", "bce", "bce_probabilities", "l1", "smooth_l1", "huber", "soft_margin", "poisson", "kl_div"
]


@dataclass(frozen=True)
class _Criterion:
    """A loss of torch's, as a class and as a function, with the keywords under which it stays of its kind."""

    kind: Kind
    module: type[nn.Module]
    function: Callable[..., Tensor]
    keywords: frozenset[str]


def _criterion(kind: Kind, module: type[nn.Module], function: Callable[..., Tensor], *keywords: str) -> _Criterion:
    return _Criterion(kind, module, function, frozenset({"reduction", *keywords}))


_CRITERIA = (
    _criterion("ce", nn.CrossEntropyLoss, F.cross_entropy, "weight", "ignore_index", "label_smoothing"),
    _criterion("nll", nn.NLLLoss, F.nll_loss, "weight", "ignore_index"),
    _criterion("mse", nn.MSELoss, F.mse_loss),
    _criterion("bce", nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, "weight", "pos_weight"),
    _criterion("bce_probabilities", nn.BCELoss, F.binary_cross_entropy, "weight"),
    _criterion("l1", nn.L1Loss, F.l1_loss),
    _criterion("smooth_l1", nn.SmoothL1Loss, F.smooth_l1_loss, "beta"),
    _criterion("huber", nn.HuberLoss, F.huber_loss, "delta"),
    _criterion("soft_margin", nn.SoftMarginLoss, F.soft_margin_loss),
    _criterion("poisson", nn.PoissonNLLLoss, F.poisson_nll_loss, "log_input", "full", "eps"),
    _criterion("kl_div", nn.KLDivLoss, F.kl_div, "log_target"),
)


FUNCTIONS = frozenset(known.function for known in _CRITERIA)


def recognised(loss: Any) -> tuple[Kind, Mapping[str, Any]] | None:
    """The kind of one of torch's losses with its settings; `None` for everything else.

    It must *be* torch's: the function itself, a `functools.partial` of it with known keywords, or a module whose
    forward pass is torch's and has no hooks. A user's subclass with a forward of its own is the user's own loss.

    >>> recognised(functools.partial(F.cross_entropy, label_smoothing=0.1))[1]["label_smoothing"]
    0.1
    >>> def mse_loss(output, target): return (output - target).abs().mean()
    >>> recognised(mse_loss) is None
    True
    """
    return _module(loss) if isinstance(loss, nn.Module) else _function(loss)


def _module(loss: nn.Module) -> tuple[Kind, Mapping[str, Any]] | None:
    for known in _CRITERIA:
        if isinstance(loss, known.module):
            own = vars(loss)
            cls = type(loss)
            untouched = cls.forward is known.module.forward and cls.__call__ is nn.Module.__call__
            if untouched and "forward" not in own and not (loss._forward_hooks or loss._forward_pre_hooks):
                return known.kind, {name: getattr(loss, name) for name in known.keywords}
    return None


def _function(loss: Any) -> tuple[Kind, Mapping[str, Any]] | None:
    function, given = loss, {}
    if type(loss) is functools.partial and not loss.args:
        function, given = loss.func, loss.keywords
    for known in _CRITERIA:
        if function is known.function and known.keywords >= given.keys():
            signature = inspect.signature(known.function).parameters
            return known.kind, {name: signature[name].default for name in known.keywords} | given
    return None


def is_convex(options: Mapping[str, Any]) -> bool:
    """Whether a known loss is convex in what it receives: all are, unless a weight is negative."""
    weights = (options.get(name) for name in ("weight", "pos_weight"))
    return all(weight is None or bool((weight >= 0).all()) for weight in weights)


def is_likelihood(kind: Kind, options: Mapping[str, Any]) -> bool:
    """Whether a loss is a mean or sum of negative log-likelihoods of an exponential family in natural parameters.

    `nll` takes log-probabilities, which are natural parameters too. Weighted and smoothed losses are no likelihoods.
    """
    plain = all(options.get(name) is None for name in ("weight", "pos_weight")) and not options.get("label_smoothing")
    return plain and (kind in ("ce", "nll", "mse", "bce") or (kind == "poisson" and options["log_input"]))
