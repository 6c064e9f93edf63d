"""Every architecture in blocks of every kind: they are disjoint and cover it, or a line says why there are none."""

import pytest
import torch

from hessdiag.errors import SpecError
from hessdiag.problem.partition import WORDS, partition
from tests.architectures.table import CASES, REGULAR


@pytest.mark.parametrize("name", REGULAR)
def test_blocks_are_disjoint_and_cover_all(name):
    problem = CASES[name]().problem
    refused = {}
    for word in WORDS:
        try:
            parts = partition(problem, word)
        except SpecError as error:
            refused[word] = error.what
            continue
        assert torch.equal(torch.cat(parts.indices).sort().values, torch.arange(problem.n_parameters))
        assert len(set(parts.names)) == len(parts.names)
    assert set(refused) <= {"head", "class", "embedding-row"}
    assert all(what.startswith(f"--by {word}: ") for word, what in refused.items())
