"""What a device takes at a time: the limits that depend on it, in one place.

A CPU works fastest on what its caches hold, and each of its operations costs next to nothing to start. A GPU is the
other way round: an operation takes some microseconds to start, and most memory traffic is as fast as any. Limits on
effort are counts and not clocks, so that the same problem is always answered alike on a kind of device.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Capacity:
    """Limits of one kind of device.

    Attributes:
        panel_numbers: Entries of H that are held at a time in neuron space.
        pair_numbers: Numbers for pairs of samples, in one pass of Hessian norms of networks; products need three times
            the memory.
        curvature_numbers: Second derivatives with respect to pre-activations of all layers, in such a pass.
        probe_numbers: Numbers in the weights or layers of networks that share a pass of products with random vectors.
            At 0, one vector at a time.
        gathers: Whether work is gathered into few large operations, since each takes time to start, by way of copies.
        drawn_ahead: Samples of networks that other threads draw on the CPU while the device is busy.
        least_decomposed: Rows from which a dense matrix is decomposed on the device; `None` where the host does it.
        apart: Iterations between two looks at what is on the device: each look waits for all that was started.
        times_work: How much more than a CPU it may compute unasked.
        times_dense: How many times as many rows a matrix may have that is decomposed whole, unasked.
        least_kept: Operations in the products of a run from which on it pays to keep these for the next run.
    """

    panel_numbers: int
    pair_numbers: int
    curvature_numbers: int
    probe_numbers: int
    gathers: bool
    drawn_ahead: int
    least_decomposed: int | None
    apart: int
    times_work: int
    times_dense: int
    least_kept: int


CPU = Capacity(
    panel_numbers=2**20,  # float32 in 4 MiB: a second-level cache and its neighbour
    pair_numbers=2**19,
    curvature_numbers=2**62,  # what pairs leave is small
    probe_numbers=0,
    gathers=False,
    drawn_ahead=0,
    least_decomposed=None,
    apart=1,
    times_work=1,
    times_dense=1,
    least_kept=2**27,  # some milliseconds, where to look at each operation of a run takes less than one
)
CUDA = Capacity(
    panel_numbers=2**26,
    pair_numbers=2**26,  # 512 MiB: some hundred networks, whose traffic takes longer than the launches
    curvature_numbers=2**28,  # 2 GiB
    probe_numbers=2**26,  # 512 MiB, of which a graph holds some copies
    gathers=True,
    drawn_ahead=8,  # one core draws networks a few times slower than a GPU measures them
    least_decomposed=200,  # LAPACK is as fast on fewer
    apart=10,
    times_work=100,
    times_dense=5,  # 10,000 rows in a second, where 2,000 take one core as long
    least_kept=2**35,
)


def of(device: "torch.device") -> Capacity:
    """The limits of a device.

    >>> import torch
    >>> of(torch.device("cuda")).times_work
    100
    """
    return CUDA if device.type == "cuda" else CPU
