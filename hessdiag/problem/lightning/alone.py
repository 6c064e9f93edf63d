"""Calling a LightningModule without a Trainer: what it logs goes nowhere, and what it counts stays as it was."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from hessdiag.errors import LoadError
from hessdiag.problem.lightning.kinds import bases, is_metric, is_module
from hessdiag.problem.replaced import replaced

OBJECTIVE = "--objective lit.py:f, with f(model, batch) -> scalar"


class Silent:
    """A logger that takes everything and does nothing."""

    def __getattr__(self, name: str) -> "Silent":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> "Silent":
        """Do nothing."""
        return self


class Unread(Silent):
    """What may be looked up and logged, and not computed with: optimizers, their groups and learning rates."""

    def __getitem__(self, _: object) -> "Unread":
        return self

    def __iter__(self) -> Iterator["Unread"]:
        return iter((self,))

    def __format__(self, _: str) -> str:
        return "?"

    def _refused(self, *_: object) -> Any:
        raise LoadError(
            "the LightningModule computes with what its optimizer holds, which is not known here.", OBJECTIVE
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _refused
    __neg__ = __float__ = __int__ = __bool__ = __lt__ = __le__ = __gt__ = __ge__ = _refused


class NoTrainer:
    """What a training step may read of its Trainer where there is none; the rest is refused by name."""

    def __init__(self, epoch: int, step: int) -> None:
        self.current_epoch, self.global_step = epoch, step
        self.is_global_zero = self.training = True
        self.sanity_checking = self.validating = self.testing = self.predicting = False
        self.global_rank = self.local_rank = self.node_rank = 0
        self.world_size = self.num_devices = 1
        self.logger = Silent()
        self.loggers: list[Any] = []
        self.callback_metrics: dict[str, Any] = {}
        self.optimizers = self.lr_schedulers = Unread()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise LoadError(f"the LightningModule reads self.trainer.{name}, and there is no Trainer here.", OBJECTIVE)


def counting(model: nn.Module) -> tuple[nn.Module, ...]:
    """The modules that may change what is no parameter and no buffer: LightningModules and metrics."""
    return tuple(module for module in model.modules() if is_module(module) or is_metric(module))


@contextmanager
def alone(modules: Sequence[nn.Module], trainer: NoTrainer, used: set[str]) -> Iterator[None]:
    """Let LightningModules be called within this context as if a Trainer of that epoch were there.

    Args:
        modules: Those of `counting`; their attributes are put back afterwards.
        trainer: Stands in where a module has none of its own.
        used: Names of what was read of it are added.
    """

    def nothing(*_: object, **__: object) -> None:
        return None

    def of_trainer(name: str) -> property:
        def read(module: Any) -> Any:
            own = module._trainer
            if own is None:
                used.add(name)
            return getattr(trainer if own is None else own, name)

        return property(read)

    attributes = {
        **dict.fromkeys(("log", "log_dict", "print"), nothing),
        **{name: of_trainer(name) for name in ("current_epoch", "global_step")},
        **dict.fromkeys(("optimizers", "lr_schedulers"), lambda *_, **__: trainer.optimizers),
        "logger": property(lambda _: trainer.logger),
        "loggers": property(lambda _: []),
        "trainer": property(lambda module: trainer if module._trainer is None else module._trainer),
    }
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(_kept(module))
        for base in bases("LightningModule"):
            stack.enter_context(replaced(base, **attributes))
        yield


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Put back the attributes of a module: lists and the like get their items back, tensors are copies meanwhile."""
    own = vars(module)
    before = dict(own)
    items = [
        (value, _items(value))
        for name, value in before.items()
        if isinstance(value, _CONTAINERS) and name not in _TORCHS
    ]
    own.update(
        {name: value.clone() for name, value in before.items() if isinstance(value, Tensor) and not value.requires_grad}
    )
    try:
        yield
    finally:
        for name in own.keys() - before.keys():
            del own[name]
        own.update(before)
        for value, content in items:
            _refill(value, content)


_CONTAINERS = (list, dict, set, deque)
_TORCHS = frozenset(vars(nn.Module()))  # parameters, buffers, hooks


def _items(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else list(value)


def _refill(value: Any, content: Any) -> None:
    value.clear()
    if isinstance(value, (list, deque)):
        value.extend(content)
    else:
        value.update(content)
