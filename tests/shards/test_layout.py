"""Pieces of parameters: together they are the whole, padding is zero, and draws do not depend on how many ranks there are."""

from itertools import pairwise

import pytest
import torch

from hessdiag.shards.layout import BLOCK, Layout, bounds, cut, share

SHAPES = (torch.Size([3, 5]), torch.Size([2]), torch.Size([]), torch.Size([4, 1, 2]))


def joined(parts, layout):
    """A whole vector of the local ones of all ranks, written differently from the package's."""
    whole = []
    for place, count in zip(layout.places, layout.counts, strict=True):
        whole += torch.cat([part[place] for part in parts]).tolist()[:count]
    return torch.tensor(whole, dtype=parts[0].dtype)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_pieces_are_the_whole(size):
    layouts = [Layout(tuple("abcd"), SHAPES, rank, size) for rank in range(size)]
    assert layouts[0].n == 15 + 2 + 1 + 8
    assert layouts[0].own == sum(share(shape.numel(), size) for shape in SHAPES)
    numbers = torch.arange(1.0, 27.0)
    locals_ = [layout.kept(lambda count: numbers[:count]) for layout in layouts]
    assert torch.equal(joined(locals_, layouts[0]), numbers)
    assert sum(float(part.sum()) for part in locals_) == float(numbers.sum())  # padding is zero
    for rank, (layout, part) in enumerate(zip(layouts, locals_, strict=True)):
        expected = [
            cut(own.reshape(shape), rank, size) for own, shape in zip(numbers.split([15, 2, 1, 8]), SHAPES, strict=True)
        ]
        assert all(map(torch.equal, layout.pieces(part), expected))
        assert all(map(torch.equal, layout.pieces(torch.stack([part, 2 * part]))[0], (expected[0], 2 * expected[0])))


def test_bounds_meet_and_end_with_the_tensor():
    for numel in range(12):
        edges = [bounds(numel, rank, 4) for rank in range(4)]
        assert edges[0][0] == 0
        assert edges[-1][1] == numel
        assert all(a[1] == b[0] for a, b in pairwise(edges))


@pytest.mark.parametrize("n", [1, 15, 16, 17, BLOCK, BLOCK + 15, BLOCK + 16, 2 * BLOCK + 7])
def test_a_generator_gives_every_rank_its_part_of_what_it_gives_at_once(n):
    shapes = (torch.Size([n - n // 3]), torch.Size([n // 3])) if n > 2 else (torch.Size([n]),)
    for dtype in (torch.float32, torch.float64):
        at_once = torch.randn(n, generator=torch.Generator().manual_seed(3), dtype=dtype)
        parts = []
        for rank in range(3):
            generator, asked = torch.Generator().manual_seed(3), []

            def draw(count, generator=generator, asked=asked, dtype=dtype):
                asked.append(count)
                return torch.randn(count, generator=generator, dtype=dtype)

            layout = Layout(("a", "b")[: len(shapes)], shapes, rank, 3)
            parts.append(layout.kept(draw))
            assert max(asked) < BLOCK + 16
        assert torch.equal(joined(parts, layout), at_once)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_neighbours_have_a_layout_of_their_own(rank):
    layout = Layout(tuple("abcd"), SHAPES, rank, 3)
    local, only = layout.within(15, 18)
    whole = torch.arange(1.0, 27.0)
    assert (only.n, only.names) == (3, ("b", "c"))
    assert torch.equal(only.kept(lambda count: whole[15:18]), layout.kept(lambda count: whole)[local])
