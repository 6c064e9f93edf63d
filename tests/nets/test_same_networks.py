"""A seed names the same networks on every device: they are drawn on the CPU, and moved."""

import numpy as np
import pytest
import torch

from hessdiag.nets.activations import activation
from hessdiag.nets.ensemble import Ensemble
from hessdiag.questions.forward.measure import forward
from hessdiag.questions.forward.norms import chunks
from hessdiag.questions.vanishing import mlp_norms
from hessdiag.questions.vanishing.measure import vanishing

META = torch.device("meta")  # nothing can be drawn there


@pytest.mark.parametrize("init", ["he_normal", "lecun", "orthogonal"])
def test_ensembles_are_drawn_on_the_cpu(init):
    sample = Ensemble(depth=2, width=3, init=init, batch=2, device=META).draw(0, 4)
    assert {part.device for part in (*sample.weights, sample.x, sample.y, sample.u)} == {META}


@pytest.mark.parametrize("distribution", ["normal", "uniform", None])
def test_forward_networks_are_drawn_on_the_cpu(distribution):
    (networks,) = chunks(distribution, width=3, seeds=4, seed=0, device=META)
    assert networks.inputs.device == networks.draw().device == META


def test_probes_are_drawn_on_the_cpu():
    sample = Ensemble(depth=2, width=3, init="he_normal", batch=2, device=META).draw(0, 4)
    generator = torch.Generator().manual_seed(0)
    squares = mlp_norms.hessian_norm2_by_products(
        sample.weights, sample.x, sample.y, activation("tanh"), 0.5, 2, generator
    )
    assert squares.device == META
    assert not torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_numbers_of_the_cpu():
    drawn = {"init": "he_normal", "seeds": 20, "seed": 3}
    for measure, options, numbers in (
        (forward, {"depth": 6, "width": 8}, lambda found: [layer.rms for layer in found.inits[0].layers]),
        (
            vanishing,
            {"depth": 4, "width": 6, "hessian_seeds": 10, "batch": 3},
            lambda found: [entry.hessian_norm.rms for entry in found.depths],
        ),
    ):
        ours, theirs = (numbers(measure(**drawn, **options, device=name)) for name in ("cpu", "cuda"))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
