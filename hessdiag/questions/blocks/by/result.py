"""What `blocks --by` finds, as numbers: what a partition's blocks hold of the Hessian, and how their spectra differ."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hessdiag.fields import Count, Interval, Matrix, NonEmpty, Number, Numbers, Real, ascending, same_length, square
from hessdiag.questions.common.result import OPTIONAL, Measured


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block of the partition. What was not measured, of many blocks or before an interrupt, is `None`.

    Attributes:
        name: For people.
        kind: What it is.
        parameters: Its size.
        frobenius: |H_bb|, with `frobenius_stderr`, which is `None` where it is exact.
        share: |H_bb|^2 / |H|^2.
        row_share: Share of the squared norm of its rows that lies inside.
        row_absolute_share: Share of the absolute mass of its rows that lies inside.
        lambda_max: Its largest eigenvalue.
        lambda_max_is_bound: Whether it has not converged: the eigenvalue is at or above.
        lambda_min: Its smallest.
        lambda_min_is_bound: Whether it has not converged: the eigenvalue is at or below.
        eigenvalues: All of them, ascending, where they are known, without those that are zero for sure.
        distance: Mean Jensen-Shannon distance of its spectrum to the others'.
    """

    name: str
    kind: str
    parameters: Count
    frobenius: Number = None
    frobenius_stderr: Number = None
    share: Number = None
    row_share: Number = None
    row_absolute_share: Number = None
    lambda_max: Number = None
    lambda_max_is_bound: bool = False
    lambda_min: Number = None
    lambda_min_is_bound: bool = False
    eigenvalues: Numbers | None = field(default=None, metadata=OPTIONAL)
    distance: Number = None


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """An extreme eigenvalue of the Hessian, and of its block diagonal.

    Attributes:
        hessian: Of H.
        hessian_is_bound: Whether it has not converged: the largest is at or above this, the smallest at or below.
        blocks: Of the block diagonal: that of one of the blocks.
        blocks_is_bound: Whether it has not converged, or a block that was not looked at may go beyond.
        block: That block.
    """

    hessian: Number = None
    hessian_is_bound: bool = False
    blocks: Number = None
    blocks_is_bound: bool = False
    block: str | None = None


@dataclass(frozen=True, kw_only=True)
class BlockSpectra:
    """Spectral densities of some blocks on one axis, logarithmic for both signs and linear around zero.

    Attributes:
        grid: asinh(x / (2 `linear_below`)) / ln 10 of eigenvalues x: decades above `linear_below`.
        eigenvalues: x itself.
        linear_below: Magnitude around which the axis turns from linear to logarithmic.
        width: Of the Gaussian that smooths, in the units of the grid: decades.
        names: The blocks.
        densities: Per unit of position; each integrates to 1.
        compared: Blocks behind `heterogeneity`, which may be more.
    """

    grid: NonEmpty[Real]
    eigenvalues: NonEmpty[Real]
    linear_below: Real
    width: Real
    names: tuple[str, ...]
    densities: Matrix
    compared: Count

    def __post_init__(self) -> None:
        """A density for each block, a value for each position."""
        ascending(grid=self.grid)
        same_length(names=self.names, densities=self.densities)
        same_length(grid=self.grid, eigenvalues=self.eigenvalues)
        for density in self.densities:
            same_length(grid=self.grid, densities=density)


@dataclass(frozen=True, kw_only=True)
class ClassTheory:
    """What softmax regression has, by class, where every class is equally likely: in closed form, whatever its data.

    Attributes:
        frobenius_share: 1 - 1/C of C classes.
        absolute_share: 1/2.
        relative_error: 1/sqrt(C).
        coupling: Norm of a block between two classes over that of a class's own: 1/(C - 1).
        lambda_max_ratio: Largest eigenvalue of the block diagonal over that of the Hessian: 1 - 1/C.
    """

    frobenius_share: Real
    absolute_share: Real
    relative_error: Real
    coupling: Real
    lambda_max_ratio: Real


@dataclass(frozen=True, kw_only=True)
class BlocksBy(Measured):
    """How block-diagonal a Hessian is under a partition of its parameters, in which norm.

    Standard errors and 95 % intervals are `None` where numbers are exact, and so is what an interrupt left out.

    Attributes:
        partition: What the blocks are, as it was asked for.
        partition_notes: What is to be kept in mind of them.
        blocks: All blocks, in the order of the partition.
        parameters: N.
        frobenius_share: Share of |H|^2 (sum of H_ij^2) inside blocks, with `_stderr` and `_interval`; so also below.
        absolute_share: Share of the sum of |H_ij|.
        relative_error: Frobenius error of the block diagonal over |H|: sqrt(1 - `frobenius_share`).
        diagonal_frobenius_share: Share of |H|^2 on the diagonal itself.
        diagonal_absolute_share: Share of the sum of |H_ij| there.
        norm: |H|.
        lambda_max: Largest eigenvalue of H and of its block diagonal.
        lambda_min: Smallest.
        top_cosine: Of the angle between the top eigenvectors of both; of repeated eigenvalues the smallest angle
            between their spaces.
        heterogeneity: Mean Jensen-Shannon distance between the blocks' spectra, from 0 to 1; `None` of one block.
        spectra: The densities behind it.
        coupled: Names of blocks whose norms with each other are in `coupling`: all of them, or the largest.
        coupling: |H_bc| of these, symmetric; `None` where it was not measured.
        rounding: Magnitude below which an eigenvalue is zero to rounding.
        method: "exact", or "sampled": random vectors, rows and Lanczos.
        probes: Random vectors for the norms of blocks; 0 if exact.
        colours: Groups of blocks that such a vector was on, one after the other; as many as blocks where each had its
            own.
        rows: Rows that were computed.
        zero_rows: Rows that are zero and were left out.
        hvps: Hessian-vector products spent, self-checks not counted.
        engine: How products were computed.
        theory: What closed forms say of it; `None` of anything but softmax regression at W = 0, by class.
    """

    command: ClassVar[str] = "blocks"

    theory: ClassTheory | None = None
    partition: str
    partition_notes: tuple[str, ...] = ()
    blocks: NonEmpty[Block]
    parameters: Count
    frobenius_share: Number = None
    frobenius_share_stderr: Number = None
    frobenius_share_interval: Interval | None = None
    absolute_share: Number = None
    absolute_share_stderr: Number = None
    absolute_share_interval: Interval | None = None
    relative_error: Number = None
    relative_error_stderr: Number = None
    relative_error_interval: Interval | None = None
    diagonal_frobenius_share: Number = None
    diagonal_frobenius_share_stderr: Number = None
    diagonal_absolute_share: Number = None
    diagonal_absolute_share_stderr: Number = None
    norm: Number = None
    norm_stderr: Number = None
    lambda_max: Extreme = Extreme()
    lambda_min: Extreme = Extreme()
    top_cosine: Number = None
    heterogeneity: Number = None
    heterogeneity_stderr: Number = None
    spectra: BlockSpectra | None = None
    coupled: tuple[str, ...] = ()
    coupling: Matrix | None = None
    rounding: Real = 0.0
    method: Literal["exact", "sampled"]
    probes: Count = 0
    colours: Count = 0
    rows: Count = 0
    zero_rows: Count = 0
    hvps: Count = 0
    engine: str = ""

    def __post_init__(self) -> None:
        """Norms are between as many blocks as are named."""
        square(len(self.coupled), coupling=self.coupling)
