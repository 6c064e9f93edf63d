"""Whether an adaptive optimizer moves what gets a small gradient: its epsilon tells, not the gradient alone."""

from hessdiag.numbers import number, times
from hessdiag.theory.optimizer_floors import Floor, effective_step, floor_of, squares_underflow

FREE = 10.0  # gradients over epsilon from which on more than nine tenths of a step are left
SLOWED = (
    0.01  # of a gradient over epsilon: networks of twenty layers still trained at 0.05, those of thirty at 5e-6 did not
)
ROOM = 100.0  # of a gradient over an epsilon that leaves it alone
SAFE = 10.0  # gradients over that whose square underflows


def remedy(gradient: float) -> str:
    """What to say of Adam and RMSprop where entries of a gradient are typically of this size.

    >>> remedy(4e-18)
    'not Adam or RMSprop as they are: their eps of 1e-8 makes steps 2.50e9 times smaller than lr at 4.00e-18 an entry'
    """
    epsilon = _adam().floor
    if gradient >= FREE * epsilon:
        return f"Adam or RMSprop, whose steps do not shrink with a gradient above their eps of 1e-8 (here {number(gradient)} an entry)"
    if not gradient:
        return "no optimizer moves what has no gradient"
    shrunk = times(1 / effective_step(_adam(), gradient, 1.0))
    held = f"their eps of 1e-8 makes steps {shrunk} smaller than lr at {number(gradient)} an entry"
    if gradient >= SLOWED * epsilon:
        return f"Adam or RMSprop with {smaller_epsilon(gradient)}, for {held}"
    return f"not Adam or RMSprop as they are: {held}"


def smaller_epsilon(gradient: float) -> str:
    """An epsilon that leaves a gradient of this size alone; with float64 weights where squares underflow in float32.

    >>> smaller_epsilon(4e-18), smaller_epsilon(1e-25)
    ('eps=4e-20', 'eps=1e-27 and float64 weights')
    """
    wide = "" if gradient > SAFE * squares_underflow("float32") else " and float64 weights"
    return f"eps={gradient / ROOM:.0e}{wide}"


def stuck(gradient: float) -> bool:
    """Whether Adam and RMSprop as they are make next to no step of entries of this size."""
    return gradient < SLOWED * _adam().floor


def _adam() -> Floor:
    found = floor_of("Adam")
    assert found is not None
    return found
