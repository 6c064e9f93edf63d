"""Truncated conjugate gradients against dense solves by NumPy, and what they do without a minimum."""

import numpy as np
import pytest
import torch

from hessdiag.linalg.quadratic.cg import conjugate_gradients


def symmetric(spectrum, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor(spectrum, dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
    return (Q * values) @ Q.T, torch.randn(len(values), generator=generator, dtype=torch.float64)


def dense(A, g, damping):
    return np.linalg.solve(A.numpy() + damping * np.eye(len(g)), -g.numpy())


POSITIVE = [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 5.0, 9.0, 20.0, 50.0]


@pytest.mark.parametrize("damping", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e25])
def test_the_damped_system_is_solved_at_any_size_of_the_gradient(damping, size):
    A, g = symmetric(POSITIVE)
    g *= size
    found = conjugate_gradients(A, g, damping=damping, tolerance=1e-12)
    np.testing.assert_allclose(found.step, dense(A, g, damping), rtol=1e-9, atol=1e-9 * size / damping)
    assert found.exit == "interior"
    assert found.products <= 2 * len(g)
    residual = -g - A @ found.step - damping * found.step
    assert float((found.residual - residual).norm()) <= 1e-11 * float(g.norm()) * max(1, 50 / damping)
    assert found.slope == pytest.approx(float(g @ found.step), rel=1e-10)
    assert found.curvature == pytest.approx(float(found.step @ A @ found.step), rel=1e-8)
    for share in (1.0, 0.25):
        s = share * found.step
        assert found.predicted(share) == pytest.approx(-float(g @ s + s @ A @ s / 2), rel=1e-8)


@pytest.mark.parametrize("tolerance", [0.5, 0.1, 1e-3])
def test_it_stops_where_the_residual_is_as_small_as_asked_and_not_later(tolerance):
    A, g = symmetric([1.0, 2.0, 5.0, 9.0, 20.0, 50.0, 90.0])
    found = conjugate_gradients(A, g, tolerance=tolerance)
    assert float((A @ found.step + g).norm() / g.norm()) <= tolerance
    before = conjugate_gradients(A, g, tolerance=tolerance, limit=found.products - 1)
    assert before.exit == "limit"
    assert before.products == found.products - 1
    assert float((A @ before.step + g).norm() / g.norm()) > tolerance


def test_products_are_counted_and_that_with_the_gradient_can_be_given():
    A, g = symmetric(POSITIVE)

    class Counting:
        shape, dtype, device = A.shape, A.dtype, A.device
        made = 0

        def __matmul__(self, v):
            self.made += 1
            return A @ v

    operator = Counting()
    alone = conjugate_gradients(operator, g, damping=10.0)
    assert alone.products == operator.made
    again = conjugate_gradients(operator, g, damping=10.0, image=A @ g / g.norm())
    assert again.products == alone.products - 1 == operator.made - alone.products
    torch.testing.assert_close(again.step, alone.step, rtol=1e-12, atol=1e-14)


def test_negative_curvature_ends_it_at_the_iterate_before():
    A, g = symmetric([-1.0, 1.0, 2.0, 5.0, 9.0, 20.0, 50.0])
    found = conjugate_gradients(A, g, tolerance=1e-12)
    assert found.exit == "negative curvature"
    assert found.products > 1
    before = conjugate_gradients(A, g, tolerance=1e-12, limit=found.products - 1)
    assert torch.equal(found.step, before.step)
    assert found.slope < 0
    assert float(((-g - A @ found.step) - found.residual).norm()) < 1e-10


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_negative_curvature_along_the_gradient_gives_the_saddle_free_step(damping):
    A, g = torch.diag(torch.tensor([-3.0, -3.0, 4.0]).double()), torch.tensor([3.0, -4.0, 0.0]).double()
    found = conjugate_gradients(A, g, damping=damping)
    assert (found.exit, found.products) == ("negative curvature", 1)
    torch.testing.assert_close(found.step, -g / (3 + damping))
    assert found.predicted() == pytest.approx(25 / (3 + damping) + 1.5 * 25 / (3 + damping) ** 2)
    torch.testing.assert_close(found.residual, -g - A @ found.step - damping * found.step)


def test_no_curvature_at_all_gives_a_finite_step_downhill():
    g = torch.tensor([3.0, 4.0]).double()
    found = conjugate_gradients(torch.zeros(2, 2).double(), g)
    torch.testing.assert_close(found.step, -g)
    assert found.predicted() == pytest.approx(25)
    A = torch.diag(torch.tensor([1.0, 0.0]).double())
    found = conjugate_gradients(A, g, tolerance=1e-9)
    assert found.exit == "negative curvature"
    assert found.step.isfinite().all()
    assert found.slope < 0


def test_products_that_are_no_numbers_end_it():
    A = torch.full((2, 2), float("nan")).double()
    found = conjugate_gradients(A, torch.ones(2).double())
    assert (found.exit, found.step.tolist()) == ("none", [0.0, 0.0])


def test_in_float32_a_gradient_whose_square_vanishes_is_followed():
    A, g = symmetric([1.0, 2.0, 5.0, 9.0])
    found = conjugate_gradients(A.float(), 1e-30 * g.float(), tolerance=1e-5)
    assert found.exit == "interior"
    np.testing.assert_allclose(found.step.double() * 1e30, dense(A, g, 0.0), rtol=1e-3)
