"""The module behind a model, and its training flags: set for an evaluation, and put back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


def uncompiled(model: nn.Module) -> nn.Module:
    """The module behind `torch.compile`, which has no double backward."""
    original = getattr(model, "_orig_mod", model)
    assert isinstance(original, nn.Module)
    return original


@contextmanager
def mode(model: nn.Module, train: bool, modules: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """Train or evaluation mode, undone afterwards.

    Args:
        model: The model.
        train: Whether to train.
        modules: All modules of the model, where they are known: to walk a deep model takes as long as a product.
    """
    modules = list(model.modules()) if modules is None else modules
    modes = [module.training for module in modules]
    try:
        if any(mode is not train for mode in modes):
            _switch(model, modules, train)
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            if module.training is not training:
                _set_training(module, training)


def _switch(model: nn.Module, modules: Sequence[nn.Module], train: bool) -> None:
    """As `model.train(train)`, which on deep models takes as long as a gradient if every module is asked in turn."""
    if all(type(module).train is nn.Module.train for module in modules):
        for module in modules:
            _set_training(module, train)
    else:
        model.train(train)


def _set_training(module: nn.Module, training: bool) -> None:
    if "training" in vars(module):  # not so in TorchScript; the slow way looks for parameters first
        object.__setattr__(module, "training", training)
    else:
        module.training = training
