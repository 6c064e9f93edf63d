"""What closed forms say of a partition by class."""

import math

from hessdiag.problem.partition import Partition
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.by.result import ClassTheory
from hessdiag.theory.softmax_regression import class_blocks

EQUAL = 1e-6  # relative error of a loss in single precision


def predicted(problem: Problem, blocks: Partition) -> ClassTheory | None:
    """The ratios of softmax regression where every class is equally likely; `None` where this is something else.

    It is one where nothing but the rows of classes is measured, all of them are zero, and the loss is the cross-entropy
    of equal chances, as it is not if a bias that is not measured favours some.
    """
    loss, count = problem.loss_of_output, len(blocks.names)
    if set(blocks.kinds) != {"class"} or count < 2 or loss is None or loss.kind != "ce" or loss.reduction != "mean":
        return None
    if any(bool(parameter.any()) for parameter in problem.parameters):
        return None
    if not math.isclose(problem.value(), math.log(count), rel_tol=EQUAL):
        return None
    law = class_blocks(count)
    return ClassTheory(
        frobenius_share=law.frobenius_share,
        absolute_share=law.absolute_share,
        relative_error=law.relative_error,
        coupling=law.coupling,
        lambda_max_ratio=law.lambda_max,
    )
