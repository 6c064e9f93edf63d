"""Matrix-free numerics for any symmetric operator. Knows no model: an operator is whatever has `@`.

The names below are imported on first use, so that `import hessdiag.linalg` does not import torch.
"""

from typing import TYPE_CHECKING

from hessdiag.lazy import lazily

if TYPE_CHECKING:
    from hessdiag.linalg.algebra import LinearCombination, Operator
    from hessdiag.linalg.api import diagonal, eigsh, frobenius, gershgorin, lanczos, slq, trace
    from hessdiag.linalg.densities import Density
    from hessdiag.linalg.diagonals import DiagonalEstimate
    from hessdiag.linalg.discs import Discs
    from hessdiag.linalg.eigenpairs import Eigenpairs
    from hessdiag.linalg.estimators import Estimate
    from hessdiag.linalg.operator import SymmetricOperator
    from hessdiag.linalg.quadratic.step import ModelStep
    from hessdiag.linalg.tridiagonal import Tridiagonal
    from hessdiag.linalg.trust_region import cubic, gltr, steihaug

_HOMES = {
    "Density": "hessdiag.linalg.densities",
    "DiagonalEstimate": "hessdiag.linalg.diagonals",
    "Discs": "hessdiag.linalg.discs",
    "Eigenpairs": "hessdiag.linalg.eigenpairs",
    "Estimate": "hessdiag.linalg.estimators",
    "LinearCombination": "hessdiag.linalg.algebra",
    "ModelStep": "hessdiag.linalg.quadratic.step",
    "Operator": "hessdiag.linalg.algebra",
    "SymmetricOperator": "hessdiag.linalg.operator",
    "Tridiagonal": "hessdiag.linalg.tridiagonal",
    "cubic": "hessdiag.linalg.trust_region",
    "diagonal": "hessdiag.linalg.api",
    "eigsh": "hessdiag.linalg.api",
    "frobenius": "hessdiag.linalg.api",
    "gershgorin": "hessdiag.linalg.api",
    "gltr": "hessdiag.linalg.trust_region",
    "lanczos": "hessdiag.linalg.api",
    "slq": "hessdiag.linalg.api",
    "steihaug": "hessdiag.linalg.trust_region",
    "trace": "hessdiag.linalg.api",
}

__all__ = [
    "Density",
    "DiagonalEstimate",
    "Discs",
    "Eigenpairs",
    "Estimate",
    "LinearCombination",
    "ModelStep",
    "Operator",
    "SymmetricOperator",
    "Tridiagonal",
    "cubic",
    "diagonal",
    "eigsh",
    "frobenius",
    "gershgorin",
    "gltr",
    "lanczos",
    "slq",
    "steihaug",
    "trace",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
