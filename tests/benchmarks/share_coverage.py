"""Coverage of the intervals of `diag-share`: `python -m tests.benchmarks.share_coverage`, in ten minutes.

Prints the rows of the table in docs/concepts/errors.md for the networks named, or else for the ten of the table: least
and mean over networks, and the median width over the share itself. Then what of it a network covers in less than 92 %.

Samples are those of the program, from a Hessian of which every entry is known at the start. Stopped runs are broken
off by an interrupt: rows after exactly the part that is said, neurons after that part of the work, one at a time as
in a large network (of a small one all share a pass).
"""

import argparse
import functools
from unittest import mock

import numpy as np
import torch

from hessdiag.curvature import neuron_space
from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.row_stream import RowStream
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.progress import silent
from hessdiag.questions.diag_share import rows as diag_share_rows
from hessdiag.questions.diag_share.totals import summarize
from tests.benchmarks import share_networks

BAR = 92  # percent


class Guesses(Pieces):
    """Rows' sizes are guessed once for all that is drawn with a seed; nothing else is kept."""

    def __init__(self):
        super().__init__(None, {})
        self.made = {}

    def arrays(self, name, compute):
        if name not in self.made:
            self.made[name] = compute()
        return self.made[name]


class Known:
    """A Hessian of which every entry is known, as an operator."""

    engine = "known"
    chunk = 1

    def __init__(self, problem):
        self.problem, self.matrix = problem, hessian(problem, check=False).double()
        self.shape, self.dtype, self.device = self.matrix.shape, self.matrix.dtype, self.matrix.device
        self.space, _ = diag_share_rows.neuron_space(HessianOperator(problem, check=False))
        self.diagonal, sizes = self.matrix.diagonal(), self.matrix.abs()
        self.sums = torch.stack([sizes[:, layer.start : layer.stop].sum(1) for layer in problem.layer_slices])
        self.truth = self._shares()

    def __matmul__(self, vectors):
        return self.matrix @ vectors

    def rows(self, indices):
        """Some rows, (rows, N)."""
        return self.matrix[indices]

    def _shares(self):
        """Shares of the whole, of layers' own blocks, and in them; NaN where a block vanishes."""
        layers = self.problem.layer_slices
        own = [float(self.sums[index, layer.start : layer.stop].sum()) for index, layer in enumerate(layers)]
        trace = [float(self.diagonal[layer.start : layer.stop].abs().sum()) for layer in layers]
        whole = float(self.sums.sum())
        executed = [layers.index(layer) for layer in self.problem.executed_layers]
        shares = [trace[index] / own[index] if own[index] else np.nan for index in executed]
        return sum(trace) / whole, sum(own) / whole, shares


class KnownStream(RowStream):
    """All rows are known at the start; the first step that goes beyond a part of the work is broken off."""

    def __init__(self, part, operator, space, others, least):
        super().__init__(operator, space, others, least)
        self.diagonal.copy_(operator.diagonal[space.places])
        self.sums.copy_(operator.sums[:, space.places])
        self.left = part * sum(step.work for step in self.steps)

    def advance(self):
        step = self.steps[self.done]
        self.left -= step.work
        if self.left <= 0:
            raise KeyboardInterrupt
        self.done += 1
        return step.stop - step.start


def stopping(rows):
    """A listener to progress that interrupts after so many rows."""

    def report(done, total, what):
        if done >= rows:
            raise KeyboardInterrupt

    return report


def rows(known, seed, guesses, wanted, part=1.0):
    """A sample of so many rows, or that part of it."""
    known.chunk = int(part * wanted)
    return diag_share_rows.sampled(known, wanted, seed, guesses, stopping(known.chunk))


def products(known, seed, guesses, part):
    """All rows by a product each, stopped."""
    known.chunk = int(part * len(known.matrix))
    return diag_share_rows.by_products(known, seed, guesses, stopping(known.chunk), None)


def neurons(known, seed, guesses, part):
    """All rows by way of neuron space, stopped; `None` where there is no neuron space."""
    if known.space is None:
        return None
    known.chunk = 1
    one_a_pass = mock.patch.object(neuron_space, "TANGENT_NUMBERS", 1)
    with one_a_pass, mock.patch.object(diag_share_rows, "RowStream", functools.partial(KnownStream, part)):
        return diag_share_rows.by_neurons(known, known.space, seed, guesses, silent)


CELLS = {
    **{f"`--rows {wanted}`": (rows, wanted) for wanted in (10, 20, 40, 100, 200)},
    **{f"`--rows 200`, stopped at {100 * part:.0f} %": (rows, 200, part) for part in (0.3, 0.6)},
    **{f"all rows by products, stopped at {100 * part:.0f} %": (products, part) for part in (0.1, 0.3, 0.6)},
    **{f"all rows in neuron space, stopped at {100 * part:.0f} %": (neurons, part) for part in (0.6, 0.75, 0.9)},
}
WHOLE, BLOCKS, LAYERS = "whole share", "layers' own blocks", "layers' shares"


def judged(known, seed, guesses, draw, *arguments):
    """By quantity: of each interval whether it holds the truth, and its width over the share. Empty if unknown."""
    computed = draw(known, seed, guesses, *arguments)
    held = {WHOLE: [], BLOCKS: [], LAYERS: []}
    if computed is None:
        return held
    drawn = computed.rows, computed.strata, computed.zero_rows
    summary = summarize(known.problem, *drawn, complete=False, draw=computed.draw)
    whole, blocks, layers = known.truth
    for quantity, share, truth in ((WHOLE, summary.diag_share, whole), (BLOCKS, summary.layer_block_share, blocks)):
        if share.value is not None:  # without an interval it is exact
            held[quantity].append(_judged(share.interval or (share.value, share.value), truth))
    for layer, truth in zip(summary.layers, layers, strict=True):
        if layer.diag_share_interval is not None and not np.isnan(truth):
            held[LAYERS].append(_judged(layer.diag_share_interval, truth))
    return held


def _judged(interval, truth):
    """Whether an interval holds the truth, up to rounding, and its width over it."""
    low, high = interval
    return low - 1e-12 <= truth <= high + 1e-12, (high - low) / truth


def measured(name, draws, first):
    """Of each cell of a network, by quantity: coverage in percent and the median width; NaN where it has none."""
    known = Known(share_networks.ALL[name]())
    held = {(cell, quantity): [] for cell in CELLS for quantity in (WHOLE, BLOCKS, LAYERS)}
    for seed in range(first, first + draws):
        guesses = Guesses()
        for cell, of in CELLS.items():
            for quantity, pairs in judged(known, seed, guesses, *of).items():
                held[cell, quantity] += pairs
    return {key: _summary(np.array(pairs, dtype=float)) for key, pairs in held.items()}


def _summary(pairs):
    return (100 * pairs[:, 0].mean(), np.median(pairs[:, 1])) if len(pairs) else (np.nan, np.nan)


def columns(tables, cell, quantity):
    """Least and mean coverage, and the median width, of the networks that have one."""
    have = np.array([table[cell, quantity] for table in tables if not np.isnan(table[cell, quantity][0])])
    if not len(have):
        return " | "
    width = f"{np.median(have[:, 1]):#.2g}".rstrip(".")
    return f"{have[:, 0].min():.1f} / {have[:, 0].mean():.1f} | {width}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"among {', '.join(share_networks.ALL)}")
    parser.add_argument("--draws", type=int, default=400, help="samples of each cell")
    parser.add_argument("--seed", type=int, default=0, help="of the first sample")
    options = parser.parse_args()
    names = options.networks or [*share_networks.MENDED, *share_networks.FRESH]
    if unknown := [name for name in names if name not in share_networks.ALL]:
        parser.error(f"no network {unknown[0]}; there are {', '.join(share_networks.ALL)}")
    torch.set_num_threads(1)  # of more, sums and what is trained with them differ
    tables = {name: measured(name, options.draws, options.seed) for name in names}
    for cell in CELLS:
        print(f"| {cell} |", *(f"{columns(tables.values(), cell, quantity)} |" for quantity in (WHOLE, LAYERS)))
    blocks = [table[cell, BLOCKS][0] for table in tables.values() for cell in CELLS]
    print(f"{BLOCKS}: {np.nanmin(blocks):.1f} % or more")
    for name, table in tables.items():
        for (cell, quantity), (coverage, _) in table.items():
            if coverage < BAR:
                print(f"{name}: {cell}, {quantity}: {coverage:.1f} %")


if __name__ == "__main__":
    main()
