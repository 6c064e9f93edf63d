"""Taking up the run of a problem that ended early: its pieces, and as many vectors a pass as it chose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.machine import processes
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.runs.identity import identity
from hessdiag.questions.common.runs.pieces import Pieces


def kept_pieces(
    problem: Problem,
    command: str,
    settings: Mapping[str, Any],
    folder: str | Path | None,
    matrix: CurvatureOperator[Any],
) -> Pieces:
    """The pieces of a run, and as many vectors a pass as it chose; the point has been looked at.

    Args:
        problem: What is measured.
        command: By which question.
        settings: What its numbers depend on besides the problem, in JSON's types.
        folder: Where pieces are kept; `None` keeps nothing.
        matrix: Whose products are taken.
    """
    if folder is None:
        return Pieces(None, {})
    pieces = Pieces(folder, {"command": command} | identity(problem) | dict(settings), matrix.device)
    choose_pass(matrix, pieces)
    return pieces


def choose_pass(matrix: CurvatureOperator[Any], pieces: Pieces, name: str = "vectors a pass") -> None:
    """Take as many vectors a pass as the first run, the same in all processes: they decide how numbers are rounded."""
    chunk = processes.least(matrix.chunk, matrix.device)
    matrix.chunk = pieces.choice(name, lambda: chunk)
