"""Floors of optimizers against the optimizers of torch themselves."""

import math

import pytest
import torch

from hessdiag.theory.optimizer_floors import effective_step, floor_of, floored_escape, squares_underflow


def _step(name: str, gradient: float, steps: int = 1, dtype: torch.dtype = torch.float64, **options: float) -> float:
    """The size of the last of several steps of torch's optimizer on one weight whose gradient stays the same."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=dtype))
    optimizer = getattr(torch.optim, name)([weight], lr=1e-3, **options)
    for _ in range(steps):
        weight.data.zero_()  # a small step has few digits beside a large weight
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return abs(weight.item())


@pytest.mark.parametrize("gradient", [1e-2, 1e-8, 4e-18])
@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("Adam", 1, {}),
        ("Adam", 1, {"eps": 1e-4}),
        ("AdamW", 1, {}),
        ("Adamax", 1, {}),
        ("RMSprop", 2000, {}),  # its average of squares starts at zero
        ("Adagrad", 1, {}),
        ("SGD", 1, {}),
    ],
)
def test_a_step_is_that_of_torch(name, steps, options, gradient):
    floor = floor_of(f"torch.optim.{name}", epsilon=options.get("eps"))
    assert _step(name, gradient, steps, **options) == pytest.approx(effective_step(floor, gradient, 1e-3), rel=1e-6)


def test_signs_have_no_floor():
    for gradient in (1.0, 1e-30):
        assert effective_step(floor_of("Lion"), gradient, 1e-3) == 1e-3
    assert effective_step(floor_of("Lion"), 0.0, 1e-3) == 0


@pytest.mark.parametrize(("dtype", "floor"), [("float32", 2.0**-23), ("float64", 2.0**-52)])
def test_adafactor_divides_by_no_less_than_the_machine_epsilon(dtype, floor):
    assert floor_of("Adafactor", dtype=dtype).floor == floor
    assert floor_of("Adafactor", dtype=dtype, epsilon=1e-30).floor == 1e-30


@pytest.mark.parametrize("norm", [1e-13, 1e-12])
def test_muon_is_gradient_descent_below_its_floor(norm):
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    gradient = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    gradient *= norm / gradient.norm()
    optimizer = torch.optim.Muon([weight], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False)
    weight.grad = gradient
    optimizer.step()
    floor = floor_of("Muon")
    assert floor.of == "matrix"
    assert float(weight.detach().norm()) == pytest.approx(floor.kappa * norm, rel=0.02)  # in bfloat16


def test_the_published_floors():
    assert [(floor_of(name).floor, floor_of(name).kappa) for name in ("Shampoo", "SOAP")] == [(1e-3, 1e3), (1e-8, 1e8)]
    sophia = floor_of("SophiaH")
    assert (sophia.floor, sophia.kappa, sophia.cap) == (pytest.approx(1e-14), pytest.approx(1e12), 0.01)
    assert floor_of("KFAC") is None


@pytest.mark.parametrize("eps", [1e-30])
def test_squares_that_underflow_make_steps_larger_than_the_learning_rate(eps):
    floor = squares_underflow("float32")
    assert _step("Adam", 100 * floor, dtype=torch.float32, eps=eps) == pytest.approx(1e-3, rel=0.01)
    assert _step("Adam", floor / 1e3, dtype=torch.float32, eps=eps) > 1.0
    assert _step("Adam", floor / 1e3, dtype=torch.float64, eps=eps) == pytest.approx(1e-3, rel=0.01)


def test_a_floored_optimizer_leaves_by_the_measured_law():
    # Shampoo on deep ReLU networks under Xavier: |lambda_min| 1.8e-4, left after 146 steps; floored AdamW: 2.6 / rate
    escape = floored_escape(floor_of("Shampoo").kappa, 0.1, 1.8e-4)
    assert escape.typical == pytest.approx(144.4, rel=1e-3)
    assert (escape.low, escape.high) == (pytest.approx(77.8, rel=1e-3), pytest.approx(888.9, rel=1e-3))
    assert math.isinf(floored_escape(1e8, 1e-3, 0.0).typical)
