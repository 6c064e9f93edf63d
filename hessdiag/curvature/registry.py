"""Which matrices can be asked about by name: the only list. Choices, words, messages and exports follow it.

Of the standard library alone: `hessdiag --help` and results read it, and must not import a single operator.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from hessdiag.curvature.operator import CurvatureOperator


class Named(NamedTuple):
    """A matrix with a name, and where its operator is: a module beside this file.

    Attributes:
        name: In `--operator`, in Python's `operator=` and in documents.
        beside: The module.
        kind: The class, a `CurvatureOperator` that is made of a `Problem` and `check=`.
        noun: What it is called in sentences, after an article.
        article: In a list of what there is.
        synonyms: What it may be called by who looks for it, in the form in which names are compared.
    """

    name: str
    beside: str
    kind: str
    noun: str
    article: str = "the"
    synonyms: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Where the class is, in full."""
        return f"{__package__}.{self.beside}"

    @property
    def operator(self) -> "type[CurvatureOperator[Any]]":
        """The class, imported on first use."""
        found: type[CurvatureOperator[Any]] = getattr(import_module(self.module), self.kind)
        return found


OPERATORS = (
    Named("hessian", "hessian", "HessianOperator", "Hessian", synonyms=("full", "h")),
    Named("ggn", "gauss_newton", "GaussNewtonOperator", "Gauss-Newton matrix", synonyms=("gauss_newton", "gn")),
    Named("fisher", "fisher", "FisherOperator", "Fisher matrix", article="the model's"),
)

NAMES = tuple(entry.name for entry in OPERATORS)
WORDS = {entry.name: entry.noun for entry in OPERATORS}

if TYPE_CHECKING:
    OperatorName = str
else:
    OperatorName = Literal[NAMES]  # so that what reads documents knows the names


def named(name: str) -> Named:
    """The entry of a name.

    Raises:
        KeyError: if there is none.

    >>> named("ggn").module
    'hessdiag.curvature.gauss_newton'
    """
    found = next((entry for entry in OPERATORS if entry.name == name), None)
    if found is None:
        raise KeyError(name)
    return found


def entry_of(operator: object) -> Named | None:
    """The entry of an operator's class, or of the nearest that it inherits from; `None` if there is none.

    >>> entry_of(3) is None
    True
    """
    known = {(entry.module, entry.kind): entry for entry in OPERATORS}
    kinds = [(kind.__module__, kind.__qualname__) for kind in type(operator).__mro__]
    return next((known[kind] for kind in kinds if kind in known), None)


def listed() -> str:
    """What there is, as a list in words.

    >>> listed()
    "the Hessian, the Gauss-Newton matrix or the model's Fisher matrix"
    """
    *others, last = (f"{entry.article} {entry.noun}" for entry in OPERATORS)
    return f"{', '.join(others)} or {last}"
