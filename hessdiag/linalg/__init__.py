"""Matrix-free numerics for any symmetric operator. Knows no model: an operator is whatever has `@`.

The names below are imported on first use, so that `import hessdiag.linalg` does not import torch.
"""

from typing import TYPE_CHECKING

from hessdiag.lazy import lazily

if TYPE_CHECKING:
    from hessdiag.linalg.algebra import LinearCombination, Operator
    from hessdiag.linalg.api import diagonal, eigsh, frobenius, trace
    from hessdiag.linalg.diagonals import DiagonalEstimate
    from hessdiag.linalg.eigensolver import Eigenpairs
    from hessdiag.linalg.estimators import Estimate
    from hessdiag.linalg.operator import SymmetricOperator

_HOMES = {
    "DiagonalEstimate": "hessdiag.linalg.diagonals",
    "Eigenpairs": "hessdiag.linalg.eigensolver",
    "Estimate": "hessdiag.linalg.estimators",
    "LinearCombination": "hessdiag.linalg.algebra",
    "Operator": "hessdiag.linalg.algebra",
    "SymmetricOperator": "hessdiag.linalg.operator",
    "diagonal": "hessdiag.linalg.api",
    "eigsh": "hessdiag.linalg.api",
    "frobenius": "hessdiag.linalg.api",
    "trace": "hessdiag.linalg.api",
}

__all__ = [
    "DiagonalEstimate",
    "Eigenpairs",
    "Estimate",
    "LinearCombination",
    "Operator",
    "SymmetricOperator",
    "diagonal",
    "eigsh",
    "frobenius",
    "trace",
]


__getattr__, __dir__ = lazily(__name__, _HOMES)
