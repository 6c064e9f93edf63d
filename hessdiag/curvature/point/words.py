"""What a point means, in words: for verdicts, and for what Python users are told."""

import math
from dataclasses import dataclass
from typing import Literal

from hessdiag.curvature.point.result import Point
from hessdiag.machine.shortage import tells_of_shortage
from hessdiag.numbers import number

NAMED = 3  # parameters or modules that a sentence names
OWN_DTYPE = "steps of six lengths were tried, in the model's own dtype for its parameters are sharded"
AT_KINK = "the outputs have a kink at these parameters: products are those of the piece whose slopes autograd takes"


@dataclass(frozen=True)
class Words:
    """A sentence, the numbers behind it, and what a person can do."""

    level: Literal["note", "warn", "bad"]
    says: str
    because: str
    remedy: str


def describe(point: Point) -> Words | None:
    """What is special about a point; `None` where nothing is."""
    writer = _WRITERS.get(point.kind)
    return None if writer is None else writer(point)


def drawn(point: Point) -> Words | None:
    """What to know of a random forward pass that was frozen."""
    if not point.draw or point.kind == "random":
        return None
    return Words(
        "warn",
        "The forward pass draws random numbers: all numbers are of one draw.",
        f"two passes differ by {_percent(point.draw)}; every evaluation now starts from the same seed",
        "another --seed for another draw; a model without sampling or functional dropout for numbers that do not depend on one",
    )


def coarse(point: Point) -> Words | None:
    """What to know of a model that computes in a coarser dtype inside."""
    if point.computes_in is None or point.kind == "rounding":
        return None
    apart = "" if point.error is None else f"; products and differences agree to {number(point.error, 2)}"
    return Words(
        "note",
        f"The model computes in {point.computes_in} inside: products are that exact, whatever the dtype of its parameters.",
        f"what is differentiated passes through {point.computes_in}{apart}",
        "take autocast and casts out of the model for more digits",
    )


def unsearched(point: Point) -> Words | None:
    """What to know of operations that could not be looked into."""
    if not point.unsearched:
        return None
    return Words(
        "note",
        f"Kinks were not searched for in {listed(point.unsearched)}.",
        "which of their units lie exactly at a kink cannot be told where the model is sharded; products and differences of gradients were compared nevertheless",
        "without --shard, on a machine with the memory, every unit is looked at",
    )


def _percent(value: float) -> str:
    if value >= 1e3:
        return f"a factor of {number(value, 1)}"
    return f"{100 * value:.0f} %" if value >= 0.995 else f"{number(100 * value, 2)} %"


def listed(names: tuple[str, ...]) -> str:
    """Some names for a sentence.

    >>> listed(("a.weight", "a.bias")), listed(("a", "b", "c", "d")), listed(())
    ('a.weight and a.bias', 'a, b, c and 1 more', 'some parameters')
    """
    if not names:
        return "some parameters"
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _rows(point: Point) -> str:
    if point.rows is None:
        return ""
    bad, of = point.rows
    return f" ({bad:,} of {of:,} {'row' if of == 1 else 'rows'} of {point.parameters[0]})" if point.parameters else ""


def _where(point: Point) -> str:
    if not point.kinks:
        return "in operations that could not be seen"
    parts = [
        f"{_percent(kink.share)} of the units of {kink.operation} in {kink.module or 'the model or loss itself'}"
        for kink in sorted(point.kinks, key=lambda kink: -kink.share)[:NAMED]
    ]
    more = len(point.kinks) - len(parts)
    return ", ".join(parts) + (f" and in {more} more" if more > 0 else "")


def _size(point: Point) -> str:
    jump = next((kink.jump for kink in point.kinks if kink.jump is not None), None)
    if jump is not None:
        return f"across them the gradient jumps by {_percent(jump)} of its norm along a random direction"
    if point.spread is not None:
        return f"curvature differs by {_percent(point.spread)} between both sides of a random direction"
    return "differences of gradients grow as one over their step"


def _wrong(point: Point) -> Words:
    return Words(
        "warn",
        f"Autograd's second derivative is wrong at this point in {listed(point.parameters)}: products are central differences of gradients.",
        f"it is off by {_percent(point.error or 0.0)} along a random direction, and differences of several steps agree on another value",
        "a form that autograd differentiates at zero: p**2 for p.abs()**2, var for std**2, real**2 + imag**2 for abs()**2; a function of your own must save its inputs, not what it computed",
    )


def _nan(point: Point) -> Words:
    return Words(
        "warn",
        f"Autograd's second derivative is NaN or infinite in {listed(point.parameters)}, where the function is smooth: products are central differences of gradients.",
        f"differences of several steps agree on a finite value{_rows(point)}",
        "square().sum() for norm()**2, and a small number added under a root or below a fraction, let autograd do it",
    )


def _kink(point: Point) -> Words:
    whose = {
        "adjacent": "the numbers are those of the one piece beside it whose derivative autograd takes",
        "everywhere": "the numbers are the same on all pieces beside it that were tried",
    }.get(point.beside or "", "the numbers are those with all choices (of maxima, signs and gates) held as they are")
    return Words(
        "warn",
        f"The parameters are at a kink, with {_where(point)} exactly on it: {whose}.",
        f"{_size(point)}; the Hessian at the point itself does not exist",
        "to leave it: biases of 0.01 for exact zeros, last gains of 1e-3 for zero ones; or take the numbers for that piece",
    )


def _kink_and(point: Point) -> Words:
    what = (
        f"autograd's second derivative is not finite in {listed(point.parameters)}"
        if point.kind == "kink_and_nan"
        else f"autograd's second derivative is wrong in {listed(point.parameters)}, by {_percent(point.error or 0.0)} along a random direction"
    )
    return Words(
        "warn",
        f"The parameters are at a kink, and {what}: products are central differences with all choices held as they are.",
        f"on the kink: {_where(point)}{_rows(point)}; {_size(point)}",
        "to leave the kink: biases of 0.01, last gains of 1e-3; square() for abs()**2 and norm()**2",
    )


def _no_hessian(point: Point) -> Words:
    if point.error == math.inf or point.rows is not None:
        return Words(
            "bad",
            f"There is no second derivative in {listed(point.parameters)}: it is NaN or infinite, and differences do not settle on a finite one.",
            f"a norm, root or quotient at exactly zero does this{_rows(point)}",
            "a small number added under the root or to the norm, such as (x.square().sum() + 1e-12).sqrt(); or parameters and data away from zero",
        )
    sides = (
        ""
        if point.one_sided is None
        else "; along one random direction it is {:.4g} on one side and {:.4g} on the other".format(*point.one_sided)
    )
    where = f" ({_where(point)})" if point.kinks else ""
    if point.spread is not None:
        says = f"There is no Hessian at this point: curvature depends on the side from which it is approached{where}."
        return Words(
            "bad",
            says,
            f"both one-sided curvatures exist, and differ by {_percent(point.spread)}{sides}; autograd's number is that of neither side",
            "measure at a point beside it: parameters that are not exactly zero, a head or biases with small random values",
        )
    return Words(
        "bad",
        f"There is no Hessian at this point: the gradient jumps there{where}, and autograd's numbers belong to no side of it.",
        f"{_size(point)}; in {listed(point.parameters)}",
        "measure at a point beside it: parameters that are not exactly zero, residuals that do not vanish",
    )


def _random(point: Point) -> Words:
    return Words(
        "bad",
        "The forward pass is random: no number below can be trusted.",
        f"two passes at the same parameters differ by {_percent(point.draw)}, {point.why or 'also from the same seed of torch'}",
        "make the model deterministic: no dropout and no sampling in forward()"
        if point.why
        else "draw with torch's global generator, which is then frozen, or make the model deterministic",
    )


def _rewritten(point: Point) -> Words:
    return Words(
        "bad",
        f"The forward pass rewrites parameters, {listed(point.parameters)}: what is measured is not the function that is trained.",
        "after one forward pass they differ; max_norm of an embedding does this. Yours were put back, and a copy was measured",
        "no max_norm (weights normalized once, before), and no parameter changed in forward()",
    )


def _inconsistent(point: Point) -> Words:
    rounding = tuple(f"{operation} in {module or 'the model itself'}" for module, operation in point.rounds)
    seen = f"; values are rounded by {listed(rounding)}: a straight-through estimator" if rounding else ""
    where = f" in {listed(point.parameters)}" if point.parameters else ""
    why = f"; {point.why}" if point.why else ""
    return Words(
        "bad",
        f"The gradient is not that of the loss{where}: the products are derivatives of something else.",
        f"along a random direction the loss changes otherwise than the gradient says, by {_percent(point.error or 0.0)} of it{seen}{why}",
        "a loss whose graph is whole: no detach(), no .data, no straight-through rounding, no clipped or scaled gradient in what is measured",
    )


def _rounding(point: Point) -> Words:
    inside = point.computes_in
    return Words(
        "bad",
        f"Products in {inside or 'this dtype'} are too coarse to be believed.",
        f"they are off by {_percent(point.error or 0.0)}" + ("" if inside else " from the same products in float64"),
        "take autocast and casts out of the model" if inside else "--dtype float64",
    )


def _unresolved(point: Point) -> Words:
    apart = "" if point.error is None else f"; the best agreement with the products is {number(point.error, 2)}"
    if point.why is not None:
        says = "The products could not be confirmed: the model cannot be differentiated twice, and differences need a copy."
        return Words("bad", says, point.why, "objective(model, batch) that uses the model it is given, and no other")
    return Words(
        "bad",
        "The products could not be confirmed: differences of gradients do not settle at any step.",
        ("steps from 3e-3 down to 3e-11 of the parameters' norm were tried" if point.step else OWN_DTYPE) + apart,
        "--dtype float64 if the model is in another; fewer --batches; parameters away from exact zeros",
    )


def _unchecked(point: Point) -> Words:
    return Words(
        "note",
        "The Hessian products could not be checked to be the derivative of the gradient.",
        point.why or "the model cannot be copied",
        "a smaller --batch-size, or a device with more memory"
        if tells_of_shortage(point.why or "")
        else "give the model as a function that builds it",
    )


_WRITERS = {
    "wrong": _wrong,
    "nan": _nan,
    "kink": _kink,
    "kink_and_wrong": _kink_and,
    "kink_and_nan": _kink_and,
    "no_hessian": _no_hessian,
    "random": _random,
    "rewritten": _rewritten,
    "inconsistent": _inconsistent,
    "rounding": _rounding,
    "unresolved": _unresolved,
    "unchecked": _unchecked,
}
