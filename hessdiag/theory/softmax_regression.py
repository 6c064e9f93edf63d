"""Softmax regression where every class is equally likely: how block-diagonal its Hessian is, class by class.

With logits z = W x and cross-entropy, the Hessian in the rows of W is the mean over samples of B (x) x x', with
B = diag(p) - p p'. At W = 0 every p is 1/C, so that it is (I/C - 1 1'/C^2) (x) S with S the mean of x x', whatever the
data and the targets: blocks between two classes are multiples of S, (C - 1)/C^2 on the diagonal and -1/C^2 beside it.
Norms, sums of absolute values and eigenvalues of S drop out of every ratio. A bias is one more input that is 1.
"""

import math
from dataclasses import dataclass

from hessdiag.errors import SpecError


@dataclass(frozen=True)
class ClassBlocks:
    """How much of the Hessian lies in the blocks of the classes.

    Attributes:
        frobenius_share: Of the sum of its squared entries, 1 - 1/C.
        absolute_share: Of the sum of its absolute entries, 1/2 whatever C is.
        relative_error: Frobenius norm of what is beside the blocks over that of the whole, 1/sqrt(C).
        coupling: Norm of a block between two classes over that of a class's own, 1/(C - 1).
        lambda_max: The largest eigenvalue of the blocks alone over that of the whole, (C - 1)/C.
    """

    frobenius_share: float
    absolute_share: float
    relative_error: float
    coupling: float
    lambda_max: float


def class_blocks(classes: int) -> ClassBlocks:
    """The ratios for softmax regression of so many classes at W = 0, for any data.

    Args:
        classes: C, at least 2.

    Raises:
        SpecError: for fewer.

    >>> class_blocks(10)
    ClassBlocks(frobenius_share=0.9, absolute_share=0.5, relative_error=0.316..., coupling=0.111..., lambda_max=0.9)
    """
    if classes < 2:
        raise SpecError(f"there are at least two classes, not {classes}.", "classes=2")
    share = 1 - 1 / classes
    return ClassBlocks(share, 0.5, 1 / math.sqrt(classes), 1 / (classes - 1), share)
