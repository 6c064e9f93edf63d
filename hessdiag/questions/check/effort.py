"""How long a step of an optimizer takes on a usual machine: what decides how many are taken.

Counted and not timed, so that the same seed takes the same steps, however busy the machine is.
"""

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.result import Check

PER_SECOND = {"cpu": 3e10, "cuda": 5e12}  # multiplications, sustained
PASSES = 3  # forward, and two products of its size back
CALL = 1.5e-4  # seconds of a layer with what is around it, forward and back, however small it is
UPDATE = 1e-9  # seconds for one parameter


def step_seconds(found: Check, problem: Problem) -> float:
    """Seconds of a step with the first batch: forward, back, update.

    >>> import torch
    >>> from hessdiag.questions.check.readings import LayerReading
    >>> layer = LayerReading(layer="0", kind="Linear", parameters=1_000_000, rows=1000)
    >>> problem = Problem(torch.nn.Linear(2, 1), data=[(torch.ones(1, 2), torch.ones(1, 1))], loss="mse")
    >>> round(step_seconds(Check(layers=(layer,)), problem), 3)
    0.101
    """
    pace = PER_SECOND.get(problem.device.type, PER_SECOND["cpu"])
    calls = sum(layer.calls for layer in found.layers)
    multiplications = sum(layer.calls * layer.rows * layer.parameters for layer in found.layers)
    parameters = sum(layer.parameters for layer in found.layers)
    return PASSES * multiplications / pace + CALL * calls + UPDATE * parameters


def affordable(seconds: float, of_a_step: float, most: int) -> int:
    """How many steps there is time for.

    >>> affordable(0.6, 0.001, 60), affordable(0.6, 0.03, 60)
    (60, 20)
    """
    return most if of_a_step * most <= seconds else int(seconds / of_a_step + 1e-9)
