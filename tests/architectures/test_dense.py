"""The dense Hessian, products, gradient and the weights of batches, of every architecture in the table."""

import pytest
import torch

from hessdiag.curvature.dense import hessian, hessian_block
from hessdiag.curvature.hessian import HessianOperator
from tests.architectures import oracle
from tests.architectures.table import REGULAR


@pytest.mark.parametrize("name", REGULAR)
def test_dense_hessian(name):
    case = oracle.built(name)
    assert oracle.apart(hessian(case.problem), oracle.hessian(name)) <= case.allowed


@pytest.mark.parametrize("name", REGULAR)
def test_products_gradient_and_a_block(name):
    case, H, g = oracle.built(name), oracle.hessian(name), oracle.gradient(name)
    problem = case.problem
    operator = HessianOperator(problem)
    V = torch.randn(len(H), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert oracle.apart(operator @ V, H @ V) <= 3 * case.allowed
    assert oracle.apart(operator @ V[:, 0], H @ V[:, 0]) <= 3 * case.allowed
    assert oracle.apart(operator.gradient(), g) <= case.allowed
    first, last = problem.layer_slices[0], problem.layer_slices[-1]
    block = H[last.start : last.stop, first.start : first.stop]
    assert float((hessian_block(problem, last, first).cpu() - block).norm()) <= case.allowed * float(H.norm())


@pytest.mark.parametrize("name", [name for name in REGULAR if oracle.built(name).weights is not None])
def test_weights_of_batches(name):
    case = oracle.built(name)
    assert case.problem.batch_weights == pytest.approx(list(case.weights), rel=1e-12)


@pytest.mark.parametrize("name", REGULAR)
def test_the_model_is_left_as_it_was(name):
    """After the tests above, in whatever order: parameters, buffers and flags to the bit."""
    case = oracle.fresh(name)
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    flags = [(module.training, *(p.requires_grad for p in module.parameters())) for module in case.model.modules()]
    problem = case.problem
    HessianOperator(problem) @ torch.ones(problem.n_parameters, dtype=problem.dtype)
    after = case.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert flags == [
        (module.training, *(p.requires_grad for p in module.parameters())) for module in case.model.modules()
    ]
    assert all(parameter.grad is None for parameter in case.model.parameters())
