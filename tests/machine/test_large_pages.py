"""Large pages: what is asked for, and that nothing else changes."""

import pytest
import torch

from hessdiag.machine import pages
from hessdiag.machine.pages import LARGE_PAGE, large_pages


def test_only_whole_pages_of_the_tensor_are_asked_for(monkeypatch):
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(pages, "_advise", lambda: lambda *arguments: asked.append(arguments))
    tensor = torch.empty(3 * LARGE_PAGE // 4 + 1)
    assert large_pages(tensor) is tensor
    ((start, size, advice),) = asked
    assert advice == pages.MADV_HUGEPAGE
    assert start % LARGE_PAGE == size % LARGE_PAGE == 0
    assert size in (2 * LARGE_PAGE, 3 * LARGE_PAGE)  # as it lies
    assert tensor.data_ptr() <= start < start + size <= tensor.data_ptr() + 4 * tensor.numel()
    large_pages(torch.empty(100))
    assert len(asked) == 1


@pytest.mark.parametrize("advise", [None, lambda *arguments: -1], ids=["another system", "refused"])
def test_a_system_without_them_changes_nothing(monkeypatch, advise):
    monkeypatch.setattr(pages, "_advise", lambda: advise)
    tensor = torch.full((2**20,), 3.0)
    assert float(large_pages(tensor).sum()) == 3.0 * 2**20
