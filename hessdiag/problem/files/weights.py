"""Weights of a file into a model: the one state dict that fits is chosen, torch loads it, and what was done is said."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError
from hessdiag.problem.files import fitting, foreign
from hessdiag.problem.files.fitting import View
from hessdiag.problem.files.state_dicts import (
    Candidate,
    candidates,
    describe,
    find_module,
    find_state_dict,
    found_at,
    none_found,
    pick,
    several,
    shown,
    some,
    sound,
    whole,
)
from hessdiag.problem.files.trust import WHOLE
from hessdiag.problem.modes import uncompiled

__all__ = ["Loaded", "describe", "find_module", "find_state_dict", "load_content", "load_into", "pick", "sound"]

_TRIALS = 16


@dataclass(frozen=True)
class Loaded:
    """What became of a file's weights.

    Attributes:
        notes: Sentences for the reader: where they were, what was stripped, converted or left out.
        left_out: Names that are `missing` in the file, `unexpected` by the model, or `mismatched` in shape.
    """

    notes: tuple[str, ...] = ()
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)


def load_content(model: nn.Module, content: Any, where: str, *, strict: bool = True) -> Loaded:
    """Load the one state dict in a file's content that fits the model.

    Args:
        model: Its parameters and buffers are overwritten.
        content: A module, a state dict, or mappings around one.
        where: The file, for messages.
        strict: Refuse names that are missing or unexpected and shapes that differ; else leave them out, and say so.

    Raises:
        SpecError: if several state dicts fit: which one is meant changes the result.
        LoadError: if none does, naming what is missing, unexpected or of another shape in the closest.
    """
    found = candidates(content)
    if not found:
        raise none_found(content, where)
    model = uncompiled(model)
    expected = fitting.expected_of(model)
    if len(found) > _TRIALS:
        found.sort(key=lambda candidate: -max(fitting.counts(candidate.state, expected).values()))
    views = [view for candidate in found[:_TRIALS] for view in fitting.views(model, candidate, expected)]
    view = _chosen(views, where, strict)
    loaded = _load(model, view, expected, where, strict)
    return replace(loaded, notes=(*found_at(view.candidate, content, where), *loaded.notes))


def load_into(model: nn.Module, state: Mapping[str, Tensor], where: str, *, strict: bool = True) -> tuple[str, ...]:
    """Load a state dict, after the usual prefixes are stripped where that makes names match.

    Args:
        model: Its parameters and buffers are overwritten.
        state: Names and tensors.
        where: The file, for messages.
        strict: As for `load_content`.

    Returns:
        Notes: what was stripped, converted or left out.

    Raises:
        LoadError: naming missing and unexpected keys and shapes that differ.
    """
    return load_content(model, state, where, strict=strict).notes


def _chosen(views: Sequence[View], where: str, strict: bool) -> View:
    """The one view that is meant.

    Raises:
        SpecError: if several fit as well.
        LoadError: if none fits.
    """
    fitting_ones = [view for view in views if view.report.fits and not _shadowed(view, views)]
    models = [view for view in fitting_ones if not view.candidate.beside] or fitting_ones
    distinct = [view for index, view in enumerate(models) if not any(_same(view, other) for other in models[:index])]
    if len(distinct) == 1:
        return distinct[0]
    if distinct:
        raise several([view.named for view in distinct], where)
    unfit = [view for view in views if not view.report.fits] or views
    best = max(unfit, key=lambda view: (view.report.matched, not view.candidate.beside, -view.report.problems))
    if strict or not best.report.matched:
        raise _misfit(best, views, where)
    rivals = [
        view.candidate
        for view in views
        if view.candidate is not best.candidate
        and view.candidate.beside <= best.candidate.beside
        and 2 * view.report.matched >= best.report.matched
    ]
    if rivals:
        raise several(_distinct([best.candidate, *rivals]), where)
    return best


def _shadowed(view: View, views: Sequence[View]) -> bool:
    """Whether the same mapping holds the model under a shorter prefix too: then the longer one is a copy beside it."""
    return any(
        other.candidate is view.candidate
        and other.report.complete
        and view.prefix.startswith(other.prefix)
        and other.prefix != view.prefix
        for other in views
    )


def _same(left: View, right: View) -> bool:
    """Whether it makes no difference which one is taken."""
    return left.state.keys() == right.state.keys() and all(
        _equal(value, right.state[name]) for name, value in left.state.items()
    )


def _equal(left: Any, right: Any) -> bool:
    if left is right:
        return True
    with contextlib.suppress(Exception):  # tensors without values, of several processes, of odd layouts
        tensors = type(left) is type(right) and isinstance(left, Tensor)
        return tensors and left.shape == right.shape and left.dtype == right.dtype and bool(torch.equal(left, right))
    return False


def _distinct(found: Sequence[Candidate]) -> list[Candidate]:
    return list({candidate.key: candidate for candidate in found}.values())


def _misfit(best: View, views: Sequence[View], where: str) -> LoadError:
    matched, places = best.report.matched, _distinct([view.candidate for view in views])
    closest = (
        f" It is the closest of {', '.join(shown(place.key) if place.key else where for place in places)}."
        if len(places) > 1
        else ""
    )
    hint = "build the model as it was trained, or name another part of the file with #KEY"
    if copies := [view.named.at(where) for view in views if view.report.fits]:
        hint = f"{' or '.join(copies)}, which fits"
    elif own := _needs(best, where):
        return own
    elif not matched:
        hint = "build the model as it was trained: no name of the file with its shape is one of the model's"
    elif not best.report.errors:
        hint += ", or --no-strict to leave these out"
    return LoadError(f"{best.named.at(where)} does not fit the model: {best.report}.{closest}", hint)


def _needs(view: View, where: str) -> LoadError | None:
    """What the file needs to be done with first, where its names or shapes show it."""
    state = view.candidate.state
    if foreign.is_adapter(state):
        return foreign.adapter(Path(where.rpartition("#")[0] or where))
    if any("_flat_param" in name for name in state):
        return LoadError(f"{where} holds the flat parameters of one FSDP process, and no layers.", WHOLE)
    if any(shapes.startswith("(0,) in the file") for _, shapes in view.report.mismatched):
        return LoadError(
            f"{where} holds empty tensors in the place of weights, as one process of DeepSpeed ZeRO-3 writes them.",
            "python zero_to_fp32.py FOLDER WHOLE, with the script in the checkpoint's folder, then --weights WHOLE",
        )
    return None


def _load(model: nn.Module, view: View, expected: Mapping[str, Tensor], where: str, strict: bool) -> Loaded:
    state, notes = whole(view.state, where), list(view.notes())
    both = [
        (name, value, expected[name]) for name, value in state.items() if name in expected and isinstance(value, Tensor)
    ]
    turned = [name for name, value, target in both if value.is_complex() and not target.is_complex()]
    if turned:
        raise LoadError(f"{some(turned)} in {where} complex, and real in the model.", "weights of the same kind")
    report = fitting.load(model, state, expected)
    if report.errors or (strict and not report.fits):
        raise LoadError(f"{where} does not fit the model: {report}.", "build the model as it was trained")
    renamed = [name for name in state if name not in expected and name not in report.unexpected]
    if renamed:
        notes.append(f"weights: {some(renamed)} in {where} renamed by the model's own loading hooks")
    if report.tied:
        notes.append(f"weights: {some(report.tied)} not in {where}, tied to weights that are")
    other = sorted({str(value.dtype) for _, value, target in both if value.dtype != target.dtype})
    if other:
        notes.append(f"weights: {', '.join(other)} in {where}, converted to the model's dtype")
    if report.fits:
        return Loaded(tuple(notes))
    share = f"{report.matched} of the model's {report.entries} entries were loaded"
    notes.append(f"weights: --no-strict left out {report}; {share}")
    mismatched = [name for name, _ in report.mismatched]
    left_out = {"missing": report.missing, "unexpected": report.unexpected, "mismatched": mismatched}
    return Loaded(tuple(notes), left_out)
