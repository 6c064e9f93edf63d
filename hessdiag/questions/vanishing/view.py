"""The view of a `vanishing` result: norms against depth, and within the deepest network."""

from collections.abc import Sequence

from hessdiag.numbers import times
from hessdiag.questions.common.ensembles.agreement_view import agreement_fact, agreement_table
from hessdiag.questions.common.result import ModelSubject, Subject
from hessdiag.questions.common.view import computed, subject
from hessdiag.questions.vanishing import figures
from hessdiag.questions.vanishing.figures import NAMES, between, limit, median, per_layer
from hessdiag.questions.vanishing.result import (
    DepthNorms,
    LayerNorms,
    NormStatistics,
    Reached,
    Vanishing,
    statistics_of,
)
from hessdiag.report.names import shortened
from hessdiag.report.numbers import (
    MISSING,
    counted,
    drawable,
    interval,
    number,
    percent,
    ratio,
    with_error,
)
from hessdiag.report.view import Fact, Table, View, without_empty

KEPT = ("depth", "median", "mean")  # columns that stay though nothing is known in them


def view(result: Vanishing) -> View:
    """Lay out a result of `vanishing`."""
    depths = result.depths
    shown = (figures.whole(depths), figures.rates(result), figures.layers(result.layers), figures.blocks(depths))
    tables = tuple(
        _table(depths, quantity)
        for quantity in NAMES
        if quantity != "vjp" and any(statistics_of(entry, quantity) for entry in depths)
    )
    vectors = (_table(depths, "vjp"),) if any(entry.vjp_norm for entry in depths) else ()
    agreement = agreement_table(
        result.agreement,
        lambda row: (row.quantity, number(row.depth)),
        "Agreement with theory where it is exact",
        ("quantity", "depth", "measured log median", "theory"),
    )
    return View(
        question="Do gradient and curvature survive the depth?",
        subject=_subject(result),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(*(figure for figure in shown if figure is not None), *tables, *_widths(depths)),
        extra=(*vectors, *_traces(depths), *_layer_widths(result.layers), *agreement),
    )


def _subject(result: Vanishing) -> tuple[tuple[str, str], ...]:
    depths = [entry.depth for entry in result.depths]
    span = f"depth {number(min(depths))} to {number(max(depths))}" if depths else "no depth finished"
    seeds = counted(result.seeds, "seed")
    if result.width is None:
        law = f" ({result.distribution})" if result.distribution else ""
        init = f"{result.init}{law}" if result.init else "as the model draws its weights"
        return (("depths", span), ("init", init), ("averaged over", seeds), *subject(_model(result.problem)))
    width = "width = depth" if result.width == "same" else f"width {result.width}"
    return (
        ("network", f"fully connected, {span}, {width}, {result.activation}"),
        ("init", f"{result.init} ({result.distribution})"),
        ("averaged over", f"{seeds}, batch of {number(result.batch)}"),
        computed(result.problem),
    )


def _model(problem: Subject) -> ModelSubject:
    """A model as it was asked about; where nothing was measured of it, little is known."""
    if isinstance(problem, ModelSubject):
        return problem
    return ModelSubject(model=problem.model, device=problem.device, dtype=problem.dtype, seed=problem.seed)


def _headline(result: Vanishing) -> tuple[str, str]:
    """What becomes of the norms between the depths that the rates are taken between, or the first and the last."""
    if not result.depths:
        return MISSING, "no depth was finished"
    first, last = between(result)
    gradient, hessian = result.rates.get("gradient"), result.rates.get("hessian")
    if result.unevenly_reached:
        return _of_the_first_layer(result, first, last)
    if first is last:
        return number(median(last.gradient_norm)), f"is the median gradient norm at depth {number(last.depth)}"
    said = (
        f"from depth {number(first.depth)} to {number(last.depth)} the median gradient norm goes from "
        f"{_change(first.gradient_norm, last.gradient_norm)}"
    )
    if None not in (median(first.hessian_norm), median(last.hessian_norm)):
        said += f", and the Hessian's from {_change(first.hessian_norm, last.hessian_norm)}"
    if gradient is None:
        return ratio(median(last.gradient_norm), median(first.gradient_norm)), f"is what is left: {said}"
    if hessian is not None:
        said += f" ({per_layer(hessian)} per layer)"
    if result.reached is not None and last.first_layer_gradient_norm is not None:
        kept = ratio(*_entries(result.reached))
        said += f"; at depth {number(last.depth)} the first layer's gradient is {kept} the last layer's"
    return per_layer(gradient), f"per layer: {said}"


def _of_the_first_layer(result: Vanishing, first: DepthNorms, last: DepthNorms) -> tuple[str, str]:
    """Where layers are not reached alike, the norm of the whole gradient is that of the layers that get most."""
    reached, rate = result.reached, result.rates.get("first_layer_gradient")
    assert reached is not None
    low, high = _entries(reached)
    deepest = number(result.depths[-1].depth)
    apart = "against that"
    if low:
        apart = f"{times(max(low / high, high / low))} {'smaller' if low < high else 'larger'} than"
    said = f"a typical entry is {number(low)} there, {apart} in the last layer ({number(high)})"
    start, end = first.first_layer_gradient_norm, last.first_layer_gradient_norm
    if rate is None or start is None or end is None:
        left = "of the last layer's gradient is what the first layer gets"
        return ratio(low, high), f"{left} at depth {deepest}: {said}"
    said = (
        f"from depth {number(first.depth)} to {deepest} the median norm of the first layer's gradient goes from "
        f"{_change(start, end)}; {said}"
    )
    return per_layer(rate), f"per layer: {said}"


def _entries(reached: Reached) -> tuple[float, float]:
    return reached.first.typical_entry, reached.last.typical_entry


def _change(first: NormStatistics, last: NormStatistics) -> str:
    return f"{number(median(first))} to {number(median(last))}"


def _facts(result: Vanishing) -> tuple[Fact, ...]:
    if not result.depths:
        return ()
    deepest, rate = result.depths[-1], result.rates.get("gradient")
    gradient, depth = deepest.gradient_norm, number(deepest.depth)
    facts = [
        Fact(
            "gradient in theory",
            limit(rate.theory_per_layer if rate is not None else None),
            "per layer, in the limit of large depth",
        ),
        Fact(
            "median Hessian norm",
            number(median(deepest.hessian_norm)),
            f"Frobenius, at depth {depth}",
        ),
        Fact(
            "mean over median",
            ratio(gradient.mean, median(gradient)),
            f"of the gradient norm at depth {depth}; far above 1, the mean is of rare networks",
        ),
        Fact(
            "dead networks",
            percent(deepest.dead_fraction),
            f"at depth {depth}: output zero for the whole batch",
        ),
        Fact(
            "off-diagonal blocks",
            ratio(
                median(deepest.hessian_offdiagonal_blocks_norm),
                median(deepest.hessian_diagonal_blocks_norm),
            ),
            "their median norm over that of the diagonal blocks; far above 1, the Hessian is hollow",
        ),
        Fact(
            "diagonal share",
            number(median(deepest.hessian_diag_share)),
            f"of the Hessian at depth {depth}",
        ),
    ]
    if deepest.hessian_probe_error is not None:
        meaning = "standard error of one deepest network's Hessian norm; the errors of medians hold it"
        facts.append(Fact("probe error", percent(deepest.hessian_probe_error), meaning))
    facts += agreement_fact(result.agreement, "of a log-median with its exact value")
    return tuple(fact for fact in facts if fact.value != MISSING)


def _table(depths: Sequence[DepthNorms], quantity: str) -> Table:
    rows = tuple(_row(entry, quantity, statistics_of(entry, quantity)) for entry in depths)
    columns = ("depth", "median", "± error", "5 % to 95 %", "mean", "/ median", "networks", "theory rms")
    optional = ("theory rms", "networks", "± error")
    return without_empty(
        Table(f"Norm of the {NAMES[quantity]}", columns, rows, text_columns=0, optional=optional), KEPT
    )


def _row(entry: DepthNorms, quantity: str, norm: NormStatistics | None) -> tuple[str, ...]:
    networks = number(entry.hessian_seeds if quantity.startswith("hessian") else entry.seeds)
    theory = number((entry.theory_rms or {}).get(quantity))
    if norm is None:
        return (number(entry.depth), *(MISSING,) * 5, networks, theory)
    return (
        number(entry.depth),
        number(median(norm)),
        _error(norm),
        interval((norm.q05, norm.q95), 3) if norm.q05 is not None and norm.q95 is not None else MISSING,
        number(norm.mean),
        ratio(norm.mean, median(norm)),
        networks,
        theory,
    )


def _error(norm: NormStatistics) -> str:
    """The standard error of a median, relative to it."""
    error = norm.log_median_stderr
    return f"± {percent(error, 2)}" if drawable(error, log=True) else MISSING


def _traces(depths: Sequence[DepthNorms]) -> tuple[Table, ...]:
    """Means of the trace, where it was measured."""
    rows = tuple(
        (
            number(entry.depth),
            with_error(entry.hessian_trace, entry.hessian_trace_stderr),
            number(entry.theory_trace, 4),
            number(entry.hessian_seeds),
        )
        for entry in depths
        if entry.hessian_trace is not None
    )
    table = Table("Trace of the Hessian", ("depth", "mean", "theory", "networks"), rows, text_columns=0)
    return (without_empty(table, ("depth", "mean", "networks")),) if rows else ()


def _widths(depths: Sequence[DepthNorms]) -> tuple[Table, ...]:
    """Effective widths by depth, where they were measured."""
    rows = tuple(
        (
            number(entry.depth),
            number(entry.path_width),
            with_error(entry.effective_width, entry.effective_width_stderr),
            ratio(entry.depth, entry.effective_width),
            number(entry.parameters or None),
            percent(entry.padding_factor),
        )
        for entry in depths
        if entry.effective_width is not None
    )
    columns = ("depth", "paths per unit", "effective width", "depth / width", "parameters", "kept by padding")
    table = Table("Effective width", columns, rows, text_columns=0, optional=("parameters",))
    return (without_empty(table, columns[:-1]),) if rows else ()


def _layer_widths(layers: Sequence[LayerNorms]) -> tuple[Table, ...]:
    """Names and effective widths of the deepest network's layers, where they were measured."""
    named = [layer for layer in layers if layer.name is not None]
    rows = tuple(
        (
            name,
            number(layer.layer),
            number(layer.path_width),
            with_error(layer.effective_width, layer.effective_width_stderr),
            percent(layer.padding_factor),
        )
        for name, layer in zip(shortened([str(layer.name) for layer in named]), named, strict=True)
    )
    columns = ("name", "layer", "paths per unit", "effective width", "kept by padding")
    return (without_empty(Table("Layers of the deepest network", columns, rows), columns[:-1]),) if rows else ()
