"""Which objects are Lightning's: told by their ancestors, so that Lightning is imported only by who uses it."""

import sys
from collections.abc import Iterator
from typing import Any

HOMES = ("lightning.pytorch", "pytorch_lightning")
METRICS = "torchmetrics"
_HOOKS = (
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
)


def bases(name: str) -> Iterator[type]:
    """The classes of a name in those homes of Lightning that are imported."""
    for home in HOMES:
        found = getattr(sys.modules.get(home), name, None)
        if isinstance(found, type):
            yield found


def is_module(value: Any) -> bool:
    """Whether something is a LightningModule.

    >>> is_module(object())
    False
    """
    return isinstance(value, tuple(bases("LightningModule")))


def is_module_class(value: Any) -> bool:
    """Whether something is a class of LightningModules."""
    return isinstance(value, type) and issubclass(value, tuple(bases("LightningModule")))


def is_data_module(value: Any) -> bool:
    """Whether something is a LightningDataModule."""
    return isinstance(value, tuple(bases("LightningDataModule")))


def is_data_module_class(value: Any) -> bool:
    """Whether something is a class of LightningDataModules."""
    return isinstance(value, type) and issubclass(value, tuple(bases("LightningDataModule")))


def is_metric(value: Any) -> bool:
    """Whether something is a metric of torchmetrics, which counts what it is shown."""
    metric = getattr(sys.modules.get(METRICS), "Metric", None)
    return isinstance(metric, type) and isinstance(value, metric)


def overrides(value: Any, name: str) -> bool:
    """Whether the class of a module or data module has a method of its own in the place of Lightning's."""
    own = getattr(type(value), name, None)
    return own is not None and all(
        own is not getattr(base, name, None)
        for kind in ("LightningModule", "LightningDataModule")
        for base in bases(kind)
    )


def idle_hooks(value: Any) -> list[str]:
    """Hooks that a Trainer would run around a training step, and that are not run here.

    Args:
        value: A module or a data module.
    """
    return [name for name in _HOOKS if overrides(value, name)]
