"""The matrices of a problem that a question may be asked of, by name; and what is known of a loss in what it receives.

Of the standard library alone: results hold these names.
"""

from typing import Literal, get_args

OperatorName = Literal["hessian", "ggn", "fisher"]
LossInOutput = Literal["convex", "linear", "unknown"]

NAMES: tuple[OperatorName, ...] = get_args(OperatorName)
WORDS: dict[OperatorName, str] = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Fisher matrix"}
