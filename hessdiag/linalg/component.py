"""A connected part of the union of discs, as a result: no torch is needed to read it."""

from dataclasses import dataclass

from hessdiag.fields import Count, Interval


@dataclass(frozen=True)
class Component:
    """Overlapping discs: `interval` holds exactly `count` eigenvalues, with multiplicity."""

    interval: Interval
    count: Count
