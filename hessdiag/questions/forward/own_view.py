"""What a report shows of the signal in a model's own weights."""

from collections.abc import Iterator

from hessdiag.questions.forward.own_result import OwnLayer, OwnSignal
from hessdiag.questions.forward.own_verdict import dead_before, end
from hessdiag.report.names import shortened
from hessdiag.report.numbers import MISSING, counted, number, percent
from hessdiag.report.view import Fact, Lines, Series, Table, without_empty

TITLE = "The model as it is: its own weights"
MOST_NAMES = 16  # of layers along an axis


def headline(own: OwnSignal) -> tuple[str, str] | None:
    """How much of the signal differs between samples where it ends; `None` where that is not known."""
    if (found := dead_before(own)) is not None:
        dead, _ = found
        return "0", f"is all that layer {dead.name} passes on in the model as it is, for every sample: it is dead"
    left = end(own)
    if left is None:
        return None
    return number(left, 3), "of the signal's size differs from sample to sample at the end of the model as it is"


def facts(own: OwnSignal) -> Iterator[Fact]:
    """Sizes at both ends, and in which mode normalization was."""
    first, last = own.first, own.last
    if first is not None:
        differs = _differs(first.input_variation)
        yield Fact("goes in", number(first.input_rms, 3), f"root mean square into {first.name}{differs}")
    if own.output_rms is not None:
        yield Fact("comes out", number(own.output_rms, 3), f"of the model{_differs(own.output_variation)}")
    elif last is not None:
        yield Fact("comes out", number(last.rms, 3), f"of {last.name}, the last layer{_differs(last.variation)}")
    if own.batch_statistics:
        yield Fact("BatchNorm", "by the batch", "as the model came: in training mode, dropout left out")
    if own.unseen_norms:
        meaning = f"{counted(own.unseen_norms, 'layer')} in evaluation mode with statistics that never saw data"
        yield Fact("BatchNorm", "idle", meaning)


def _differs(variation: float | None) -> str:
    return "" if variation is None else f"; samples differ by {number(variation, 2)} of that"


def blocks(own: OwnSignal) -> Iterator[Table | Lines]:
    """Every layer with weights in a table, and variation and size in a chart."""
    if own.layers:
        yield _table(own)
    layers = [layer for layer in own.layers if layer.input_rms is not None]
    if len(layers) < 2:
        return
    names = shortened([layer.name for layer in layers])
    series = (
        Series("differs between samples", tuple(_positive(layer.input_variation) for layer in layers)),
        Series("size", tuple(_positive(layer.input_rms) for layer in layers), group=1),
    )
    rows = tuple((number(at), *(number(one.values[at - 1], 4) for one in series)) for at in range(1, len(layers) + 1))
    title = "What goes into each layer of the model as it is"
    yield Lines(
        title=title,
        caption=(
            "How much of the signal differs from sample to sample (standard deviation over samples, over the root mean "
            "square), and the root mean square itself. Where the first falls towards 0, all samples look the same to "
            "the layers above, however large the signal is; where it breaks off, there is no signal."
        ),
        alt="Variation between samples and size of what goes into each layer.",
        table=Table(title, ("layer", *(one.name for one in series)), rows, text_columns=0),
        text="none",
        x=tuple(float(at) for at in range(1, len(layers) + 1)),
        series=series,
        x_axis="layer, from the input",
        names=names if all(names) and len(names) <= MOST_NAMES else (),
        y_axis="of the size / size",
    )


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _table(own: OwnSignal) -> Table:
    names = shortened([layer.name for layer in own.layers])
    rows = tuple(
        (
            name,
            number(layer.units),
            number(layer.input_rms, 3),
            number(layer.input_variation, 2),
            number(layer.rms, 3),
            number(layer.variation, 2),
            percent(layer.input_zero_units),
            _said(layer),
        )
        for name, layer in zip(names, own.layers, strict=True)
    )
    columns = ("layer", "units", "size in", "differs in", "size out", "differs out", "zero in", "note")
    made = Table(TITLE, columns, rows, text_columns=1, optional=("units", "zero in"))
    return without_empty(made, set(columns) - {"note"})


def _said(layer: OwnLayer) -> str:
    if layer.zero_weights:
        return "weights are zero"
    return "all units alike" if layer.alike else MISSING
