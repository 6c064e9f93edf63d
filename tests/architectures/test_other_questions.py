"""Questions that re-initialize or rebuild a model, on architectures that are unlike a stack of layers."""

import pytest

from hessdiag.errors import SpecError
from hessdiag.questions.forward.model import forward_model
from hessdiag.questions.vanishing.models import vanishing_of
from tests.architectures import oracle
from tests.architectures.case import CASES
from tests.architectures.table import REGULAR

ODD = (
    "list_of_images_of_different_sizes",
    "packed_sequences",
    "transformer_encoder_with_padding",
    "model_that_returns_its_own_loss",
)
NO_LAYER = ("fourier_features_and_complex_inside",)
UNLIKE = [name for name in REGULAR if name in ODD or CASES[name].__module__.endswith("structured")]


@pytest.mark.parametrize("name", UNLIKE)
def test_norms_of_a_model_as_it_was_built(name):
    case = oracle.built(name)
    found = vanishing_of(lambda depth, seed: oracle.fresh(name).problem, depth=[1], seeds=2).depths[0]
    assert found.gradient_norm.median == pytest.approx(float(oracle.gradient(name).norm()), rel=10 * case.allowed)
    assert found.hessian_norm.median == pytest.approx(float(oracle.hessian(name).norm()), rel=10 * case.allowed)


@pytest.mark.parametrize("name", UNLIKE)
def test_signals_through_a_model(name):
    """Every layer that is called has a positive ratio of norms."""
    problem = oracle.fresh(name).problem
    if name in NO_LAYER:
        with pytest.raises(SpecError, match=r"Linear or Conv layer"):
            forward_model(problem, seeds=3, init="he_normal")
        return
    found = forward_model(problem, seeds=3, init="he_normal")
    assert found.status == "ok"
    assert all(layer.rms > 0 for layer in found.inits[0].layers)
