"""How long a step of an optimizer takes on a usual machine: what decides how many are taken.

Counted and not timed, so that the same seed takes the same steps, however busy the machine is.
"""

from hessdiag.problem.device import OF_PRODUCTS, operations
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.result import Check

PER_SECOND = {"cpu": 1e10, "cuda": 5e12}  # multiplications, sustained
PASSES = 3  # forward, and two products of its size back
CALL = 1e-4  # seconds of a layer with what is around it, forward and back, however small it is
UPDATE = 1e-9  # seconds for one parameter


def step_seconds(found: Check, problem: Problem) -> float:
    """Seconds of a step with the first batch: forward, back, update.

    >>> import torch
    >>> model = torch.nn.Linear(1000, 1000, bias=False)
    >>> problem = Problem(model, data=[(torch.ones(1000, 1000), torch.ones(1000, 1000))], loss="mse")
    >>> round(step_seconds(Check(), problem), 3)
    0.301
    """
    n = problem.n_parameters
    multiplications = operations(problem.model, problem.data[:1]) / max(n, OF_PRODUCTS)
    calls = sum(layer.calls for layer in found.layers)
    pace = PER_SECOND.get(problem.device.type, PER_SECOND["cpu"])
    return PASSES * multiplications / pace + CALL * calls + UPDATE * n


def affordable(seconds: float, of_a_step: float, most: int) -> int:
    """How many steps there is time for.

    >>> affordable(0.6, 0.001, 60), affordable(0.6, 0.03, 60)
    (60, 20)
    """
    return min(most, int(seconds / of_a_step + 1e-9))
