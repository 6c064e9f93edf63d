"""The batch: what the model receives, and what it should put out."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import LoadError
from hessdiag.problem.batches import batch as batches
from hessdiag.questions.check.readings import InputReading, TargetReading
from hessdiag.questions.check.watching.neighbours import likeness
from hessdiag.questions.check.watching.outgoing import Judged, counted
from hessdiag.questions.check.watching.passing import Passing
from hessdiag.questions.check.watching.rows import keys
from hessdiag.questions.check.watching.signals import Signal, known, laid_out, measured
from hessdiag.questions.common.constant import BINARY, CLASSES


def named_inputs(batch: Any) -> list[tuple[str, Tensor]]:
    """The tensors that a model receives, by their keys or places."""
    try:
        inputs, _ = batches.split(batch)
    except LoadError:
        inputs = batch
    return list(_named(inputs, ""))


def _named(part: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield prefix or "0", part
    elif isinstance(part, Mapping):
        for name, value in part.items():
            yield from _named(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(part, (tuple, list)):
        for place, value in enumerate(part):
            yield from _named(value, f"{prefix}.{place}" if prefix else str(place))


def inputs(batch: Any, samples: int, passing: Passing) -> tuple[InputReading, ...]:
    """What the model receives."""
    return tuple(
        _input(name, tensor, samples, *passing.taken_by(place))
        for place, (name, tensor) in enumerate(named_inputs(batch))
    )


def _input(name: str, tensor: Tensor, samples: int, taker: str | None, normalized: bool) -> InputReading:
    where: dict[str, Any] = {"taken_by": taker, "normalized": normalized}
    entries = tensor.numel() // max(samples, 1)
    if not tensor.is_floating_point():
        ends: dict[str, Any] = {}
        if tensor.numel() and not tensor.is_complex() and tensor.layout is torch.strided:
            ends = {"low": float(tensor.min()), "high": float(tensor.max())}
        return InputReading(name=name, kind="index", entries=entries, **ends, **where)
    laid = laid_out(tensor, samples)
    if laid is None:
        return InputReading(name=name, kind="real", entries=entries, **where)
    found = Signal(*measured(laid).tolist())
    flat = laid.flatten(1)
    low, high = float(flat.min()), float(flat.max())
    several = len(flat) > 1
    spreads = (flat - flat[:1]).std(0) if several else flat.new_zeros(flat.shape[1])
    varying = spreads[spreads > 0]
    distinct = len(torch.unique(keys(flat[:, spreads > 0].T))) if several and len(varying) else 0
    return InputReading(
        name=name,
        kind="real",
        entries=entries,
        rms=known(found.rms),
        mean=known(found.mean),
        stdev=known(float((flat - found.mean).square().mean().sqrt())),
        low=low,
        high=high,
        variation=known(found.variation),
        constant_share=1 - len(varying) / flat.shape[1] if several else None,
        duplicated_share=1 - distinct / len(varying) if len(varying) else None,
        steepest=known(float(varying.max() / varying.median())) if len(varying) else None,
        **where,
    )


def targets(judged: Judged, inputs: list[Tensor], samples: int, seed: int) -> TargetReading:
    """What should come out."""
    values = counted(judged)
    if values is None or not values.numel():
        return TargetReading(kind="none", count=0 if values is None else values.numel())
    if values.is_complex():
        return TargetReading(kind="real", count=len(values))
    whole = not values.is_floating_point()
    kind = "classes" if judged.kind in CLASSES and whole else "binary" if judged.kind in BINARY else "real"
    if judged.kind is None and whole:
        kind = "classes"
    numbers = values.double()
    low, high = float(numbers.min()), float(numbers.max())
    reading: dict[str, Any] = {"low": low, "high": high, "constant": low == high}
    if kind == "real":
        reading |= {"mean": float(numbers.mean()), "stdev": float((numbers - numbers.mean()).square().mean().sqrt())}
    else:
        _, counts = torch.unique(values, return_counts=True)
        reading |= {"seen": len(counts), "largest_share": float(counts.max()) / len(values)}
        output = judged.output
        reading["classes"] = 2 if kind == "binary" else None
        if kind == "classes" and output is not None and output.ndim > 1:
            reading["classes"] = output.shape[1]
    per_sample = judged.target if kind == "real" and judged.target is not None and judged.target.ndim else values
    if kind == "binary" and per_sample.is_floating_point():
        per_sample = per_sample.round().long()
    found = likeness(inputs, per_sample, samples, seed)
    if found is not None:
        reading |= {"neighbours_z": found.z, "neighbours_excess": found.excess}
        reading |= {"neighbours_closeness": found.closeness, "inputs_are_noise": found.noise}
    return TargetReading(kind=kind, count=len(values), **reading)
