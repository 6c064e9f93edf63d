import pytest
import torch

from hessdiag.curvature import memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("saved", "vector", "free", "expected"),
    [
        (100, 100, 2**40, 64),  # small: as many as help
        (7_000_000, 60_000, 2**40, 32),  # a pass would write more than pays
        (100, 3_200_000, 2**40, 1),  # vectors out of cache
        (1_000_000, 100_000, 64 * 2**20, 4),  # little memory
        (10**9, 10**9, 2**20, 1),  # never less than one
    ],
)
def test_vectors_per_pass(saved, vector, free, expected, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert memory.chunk_size(saved, vector, CPU) == expected


def test_free_memory_is_some_of_the_machine():
    assert 2**20 < memory.free_bytes(CPU) < 2**45


def test_running_out_of_memory_halves_the_chunk(monkeypatch):
    from torch import nn

    from hessdiag.curvature.hessian import HessianOperator, _GradientGraph
    from hessdiag.problem.problem import Problem

    problem = Problem(
        nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)),
        data=[(torch.ones(4, 2), torch.ones(4, 1))],
        loss="mse",
    )
    expected = HessianOperator(problem).rows(torch.arange(13))
    operator = HessianOperator(problem)
    computed = _GradientGraph.products

    def scarce(self, vectors, layer):
        if len(vectors) > 4:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")
        return computed(self, vectors, layer)

    monkeypatch.setattr(_GradientGraph, "products", scarce)
    torch.testing.assert_close(operator.rows(torch.arange(13)), expected)
    assert operator.chunk == 4
    assert "4 vectors a pass" in operator.engine
