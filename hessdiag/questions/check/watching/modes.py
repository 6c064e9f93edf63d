"""Modules whose behaviour hangs on their mode: normalizations that keep statistics, and dropout."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.layers import kind_of
from hessdiag.questions.check.readings import ModeReading
from hessdiag.questions.check.watching.signals import laid_out

_KEEPING = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_DROPPING = (nn.modules.dropout._DropoutNd, nn.RNNBase, nn.MultiheadAttention)


class Moded:
    """The modules of a model whose mode matters; their inputs are compared with the statistics that they keep.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = [
            (path, module) for path, module in model.named_modules() if not isinstance(module, torch.jit.ScriptModule)
        ]
        self._keeping = [(path, module) for path, module in modules if isinstance(module, _KEEPING)]
        self._dropping = [(path, module) for path, module in modules if isinstance(module, _DROPPING) and _drop(module)]
        self._tracked = {module: _tracked(module) for _, module in self._keeping}  # before a pass counts itself
        self._found: dict[nn.Module, tuple[Tensor | None, int]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at what goes into the normalizations."""
        with ExitStack() as stack:
            for _, module in self._keeping:
                stack.callback(module.register_forward_pre_hook(self._look).remove)
            yield

    def _look(self, module: Any, args: Any) -> None:
        if not args or not isinstance(args[0], Tensor) or args[0].ndim < 2:
            return
        with torch._C.DisableTorchFunction(), torch.no_grad():
            value = args[0]
            count = value.numel() // max(value.shape[1], 1)
            if isinstance(module, nn.modules.instancenorm._InstanceNorm):
                count //= max(len(value), 1)
            kept = module.running_mean is not None and module.running_var is not None and value.numel() > 0
            laid = laid_out(value, len(value), axis=0, unit=1) if kept else None
            self._found[module] = (None if laid is None else mismatch(laid, module), count)

    def readings(self, functional: Iterable[tuple[float, bool]]) -> tuple[ModeReading, ...]:
        """What was found.

        Args:
            functional: Probability and mode of each call of a function that drops.
        """
        found = []
        for path, module in self._keeping:
            apart, count = self._found.get(module, (None, 0))
            if module.running_mean is None and not isinstance(module, nn.modules.batchnorm._BatchNorm):
                continue  # as in training, whatever its mode
            found.append(
                ModeReading(
                    layer=path or kind_of(module),
                    kind=kind_of(module),
                    training=bool(module.training),
                    tracked=self._tracked[module],
                    mismatch=None if apart is None or not bool(apart.isfinite()) else float(apart),
                    samples=count or None,
                )
            )
        for path, dropping in self._dropping:
            kind = kind_of(dropping)
            found.append(ModeReading(layer=path or kind, kind=kind, training=dropping.training, drop=_drop(dropping)))
        modules = (one for one in self._dropping if isinstance(one[1], nn.modules.dropout._DropoutNd))
        own = Counter((_drop(module), module.training) for _, module in modules)
        for drop, training in sorted(set(functional) - own.keys()):
            found.append(ModeReading(layer="dropout", kind="function", training=training, drop=drop))
        return tuple(found)


def _tracked(module: nn.Module) -> int | None:
    """How many batches a normalization has seen; `None` where it keeps no count."""
    count = getattr(module, "num_batches_tracked", None)
    return int(count) if isinstance(count, Tensor) else None


def _drop(module: nn.Module) -> float:
    """The probability with which a module drops; 0 where it does not."""
    value = getattr(module, "p" if isinstance(module, nn.modules.dropout._DropoutNd) else "dropout", None)
    return float(value) if isinstance(value, (int, float)) else 0.0


def mismatch(laid: Tensor, module: Any) -> Tensor:
    """How far running statistics are from those of what comes in, (samples, positions, channels): 1 for equal ones.

    The root mean square over channels of the difference of means in running standard deviations, plus 1; or of the
    logarithm of the ratio of standard deviations, as a factor; whichever is larger.
    """
    variance, mean = torch.var_mean(laid, (0, 1), correction=0)
    kept = (module.running_var.double() + module.eps).sqrt()
    now = (variance + module.eps).sqrt()
    means = ((mean - module.running_mean.double()) / kept).square().mean().sqrt()
    ratios = (now / kept).log().square().mean().sqrt().exp()
    return torch.maximum(1 + means, ratios)
