"""What training must find as it left it: random numbers, modes of autograd and autocast, and hooks that are not run."""

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from hessdiag.machine.arithmetic import ieee
from hessdiag.problem.measuring import beside_other_graphs


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Measure within this, and training goes on as if nothing had been.

    An evaluation itself leaves weights, buffers, modes and `.grad` alone. Here are the rest: the random numbers of
    torch on all devices, of numpy and of Python, `no_grad`, `inference_mode`, autocast, and hooks on gradients, which
    belong to training and are not called. Hooks on forward passes are part of what a model computes, and are.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_numbers_kept())
        stack.enter_context(_no_gradient_hooks(model))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(ieee())
        stack.enter_context(beside_other_graphs(device))  # training's may be alive; and nothing here is worth recording
        yield


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    python, arrays = random.getstate(), np.random.get_state()
    metal = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        if metal is not None:
            torch.mps.set_rng_state(metal)


@contextmanager
def _no_gradient_hooks(model: nn.Module) -> Iterator[None]:
    """Put away what training hooks to gradients: it may change them, or count how often it is called."""
    parameters = [one for one in model.parameters() if one._backward_hooks]
    tensors = [(one, one._backward_hooks) for one in parameters]
    modules = [(one, one._backward_hooks, one._backward_pre_hooks) for one in model.modules()]
    modules = [held for held in modules if held[1] or held[2]]
    try:
        for parameter, _ in tensors:
            parameter._backward_hooks = None
        for module, _, _ in modules:
            module._backward_hooks, module._backward_pre_hooks = OrderedDict(), OrderedDict()
        yield
    finally:
        for parameter, hooks in tensors:
            parameter._backward_hooks = hooks
        for module, after, before in modules:
            module._backward_hooks, module._backward_pre_hooks = after, before
