"""What optimizers of this package have in common."""

import copy
import pickle

import pytest
import torch
from torch import nn

from hessdiag.optimizers.recipe import recipe
from hessdiag.optimizers.registry import OPTIMIZERS


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_copy_goes_on_as_the_original(name):
    """As deepcopy and pickle make one, of every optimizer of this package."""
    model = nn.Linear(3, 2).double()
    x, y = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    both = (model, recipe(name, None).build(model))

    def run(model, optimizer):
        def closure():
            z = model(x).tanh()
            loss = (z - y).square().mean()
            return (loss, z) if OPTIMIZERS[name].output else loss

        return [optimizer.step(closure) for _ in range(3)]

    run(*both)
    copies = copy.deepcopy(both), pickle.loads(pickle.dumps(both))
    expected = run(*both)
    assert all(run(*one) == expected for one in copies)
    assert len(set(expected)) > 1
