"""The comparison of a sharded Gauss-Newton product with the loss along the linearized model."""

from contextlib import suppress

import torch
from torch import Tensor

from hessdiag.curvature.linearization import STEPS, Linearization, OutputMatrix, along, least, steps, unit
from hessdiag.curvature.point.examine import TOLERANCE
from hessdiag.curvature.point.watch import DIGITS, OtherPathError
from hessdiag.curvature.sharded import local
from hessdiag.curvature.sharded.kinks import Held, Looking
from hessdiag.curvature.sharded.moved import moving
from hessdiag.shards.problem import ShardedProblem


def linearized(operator: OutputMatrix, problem: ShardedProblem, seed: int = 0) -> Linearization:
    """Compare one product with the loss along the linearized model, in the model's own dtype.

    It takes one product, and for each step three forward passes, of which the first nearly always does; and two local
    vectors of memory beside what these take.

    Args:
        operator: A Gauss-Newton matrix, or a Fisher matrix that is one of another function.
        problem: Its problem.
        seed: Of the direction.

    Raises:
        ComputeError: if the product cannot be computed.
    """
    function = operator.function
    assert function is not None
    v = local.direction(problem, torch.Generator().manual_seed(seed))
    form = local.inner((v, operator @ v))[0]
    allowed, inside, held = TOLERANCE[problem.dtype], None, False
    watched: set[Tensor] = {*problem.pieces}
    with moving(problem) as moved:
        seen = list(steps(moved, v, function, problem.dtype, watched, form, allowed))
        error = least(seen, form)
        if not error <= allowed:
            look = Looking(problem.model)
            moved.origin()
            for batch in problem.data:
                moved.gradient(batch, look)
            coarsest = min((one.dtype for one in look.seen), key=DIGITS.index)
            if TOLERANCE[coarsest] > allowed:
                inside, allowed = coarsest, TOLERANCE[coarsest]
                seen += steps(moved, v, function, inside, watched, form, allowed)
                error = least(seen, form)
            if not error <= allowed and len(look.seen) == 1:  # astride a kink; the loss may have none
                hold = Held(moved, look.seen, tight=True)
                moved.holding = lambda batch: hold(batch, True)
                with suppress(OtherPathError):
                    step = moved.step(v, STEPS[0] * unit(inside or problem.dtype))
                    beside = along(moved, v, function, step, watched)
                    held = beside.distance(form) <= allowed
                    error = min(error, beside.distance(form))
    moves, elsewhere = any(one.moves for one in seen), any(one.elsewhere for one in seen)
    return Linearization(error, moves, any(one.size > 0 for one in seen), elsewhere, held, allowed, inside)
