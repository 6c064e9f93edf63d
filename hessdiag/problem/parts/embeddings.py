"""Rows of embeddings, one for each token."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from hessdiag.errors import HessdiagError, SpecError
from hessdiag.problem.parts.block import Block, Found, aliases, entries, starts
from hessdiag.problem.problem import Problem
from hessdiag.problem.touched import looked_up


def embedding_rows(problem: Problem) -> Found:
    """One block for each row of each `nn.Embedding` and `nn.EmbeddingBag`.

    Args:
        problem: Whose parameters they are.

    Returns:
        Blocks in the order of registration, named `table[row]`. Notes count the rows that no batch looks up, of which
        the Hessian has zeros, and name the layers that share a table.

    Raises:
        SpecError: if there is no table, or none is measured.

    >>> import torch
    >>> model = nn.Sequential(nn.Embedding(3, 2), nn.Flatten(), nn.Linear(4, 1))
    >>> found = embedding_rows(Problem(model, data=[(torch.tensor([[0, 2]]), torch.zeros(1, 1))], loss="mse"))
    >>> [(block.name, block.indices.tolist()) for block in found.blocks], found.notes
    ([('0[0]', [0, 1]), ('0[1]', [2, 3]), ('0[2]', [4, 5])],
     ('0: 1 of 3 rows is looked up in no batch: its curvature is zero',))
    """
    tables: dict[Tensor, str] = {
        weight: path
        for path, module in problem.model.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        and (weight := module._parameters.get("weight")) is not None
    }
    if not tables:
        raise SpecError("--by embedding-row: the model has no embedding (nn.Embedding, nn.EmbeddingBag).", "--by layer")
    start = starts(problem)
    measured = {table: path for table, path in tables.items() if table in start}
    if not measured:
        raise SpecError("--by embedding-row: no embedding is measured: all are frozen, or left out.", "--layers '*'")
    blocks = [
        Block(f"{path or type(problem.model).__name__}[{row}]", "embedding row", places)
        for table, path in measured.items()
        for row, places in enumerate(entries(table, start[table]))
    ]
    names = aliases(problem)
    notes = [
        f"{path}: its rows are also those of {', '.join(others)}, and count once"
        for table, path in measured.items()
        if (others := [name for name in names[table] if name != f"{path}.weight"])
    ]
    return Found(tuple(blocks), (*notes, *_untouched(problem, measured)))


def _untouched(problem: Problem, tables: Mapping[Tensor, str]) -> Iterator[str]:
    """How many rows of each table are looked up in no batch."""
    try:
        rows = looked_up(problem)
    except (HessdiagError, RuntimeError):  # said where it is measured
        return
    for table, path in tables.items():
        found = next((found for parameter, found in rows.items() if parameter is table), None)
        if found is not None and len(found) < len(table):
            left = len(table) - len(found)
            what = "is looked up in no batch: its" if left == 1 else "are looked up in no batch: their"
            yield f"{path}: {left:,} of {len(table):,} rows {what} curvature is zero"
