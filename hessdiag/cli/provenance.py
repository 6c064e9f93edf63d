"""Until every question gives a typed result: provenance as commands collect it themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from hessdiag.questions.common import provenance
from hessdiag.questions.common.provenance import Clock as Clock
from hessdiag.questions.common.provenance import peak_memory_bytes as peak_memory_bytes
from hessdiag.questions.common.result import ModelSubject
from hessdiag.report.document import plain


def collect(
    clock: Clock,
    device: str,
    kernels_forced: Sequence[str] = (),
    *,
    resumed_pieces: int = 0,
    cost: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document's "provenance"."""
    subject = ModelSubject(device=device, kernels_forced=tuple(kernels_forced))
    argv = tuple(click.get_current_context().meta.get("hessdiag.argv", ()))
    found: dict[str, Any] = plain(
        replace(provenance.collect(clock, subject, resumed_pieces), argv=argv, cost=dict(cost) if cost else None)
    )
    return found
