"""Parts of a view that all questions have: what was measured, how far to trust it, the verdict, how to repeat it."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from hessdiag.machine.sizes import gib
from hessdiag.numbers import deviation
from hessdiag.questions.common.inertia import Inertia
from hessdiag.questions.common.metric import Metric, source
from hessdiag.questions.common.result import Measured, ModelSubject, Provenance, Result, Shape, Subject
from hessdiag.report.numbers import MISSING, counted, number
from hessdiag.report.view import Fact, Finding, SelfCheck, Table

COUNTED = ("targets", "targets, by class weight", "labels")  # which may be fewer, or more, than samples
FEW = 4  # weights that are all named
ALIKE = 1e-3  # relative difference of weights that goes without saying

BY_STATUS = {
    "inexact": "NOT TRUSTWORTHY: a self-check failed, or something did not converge or could not be computed; "
    "see the verdict.",
    "interrupted": "INTERRUPTED: these are the numbers as they stood then, of what was measured by then.",
}
CHECKS = {
    "hvp_symmetry": (
        "symmetry of the products",
        "two products with random vectors agree as those of a symmetric matrix; relative error",
    ),
    "hvp_finite_difference": (
        "products against differences",
        "a product with a random vector is what gradients change by along it; relative error",
    ),
    "hvp_two_steps": (
        "differences at two steps",
        "products by central differences do not depend on their step; relative error",
    ),
    "metric_symmetry": (
        "symmetry in the metric",
        "two products in the optimizer's metric agree as those of a symmetric matrix; relative error",
    ),
    "ggn_quadratic_form": (
        "Gauss-Newton against the linearized model",
        "v'Gv is the loss's curvature along the model's slopes; relative error",
    ),
    "hessian_norm_z": (
        "exact norms against products",
        "an exact Hessian norm agrees with random products; in their standard errors",
    ),
    "largest_z": (
        "simulation against theory",
        "the largest deviation from an exact value; in standard errors",
    ),
}
OF_INIT = ("_median_z", "medians against theory", "the largest deviation from an exact median; in standard errors")


def subject(problem: ModelSubject, *, as_it_came: bool = False) -> tuple[tuple[str, str], ...]:
    """Model, parameters, mode, batch, loss and machine, as (name, value): the head of every report about one model.

    Args:
        problem: What was measured.
        as_it_came: Whether it was evaluated in the mode that it came in, unless training mode was asked for.
    """
    origin = [problem.spec] if problem.spec else []
    if problem.weights:
        origin.append(f"weights {problem.weights}")
    batch = counted(problem.samples, "sample")
    if problem.input_shape:
        batch += f" of {_shape(problem.input_shape)}"
    if problem.batches != 1:
        batch += f" in {counted(problem.batches, 'batch', 'batches')}"
    if problem.synthetic:
        batch += ", SYNTHETIC"
    elif problem.data:
        batch += f" ({problem.data})"
    loss = problem.loss or ""
    return (
        ("model", f"{problem.model} ({', '.join(origin)})" if origin else problem.model),
        *_mode(problem, as_it_came=as_it_came),
        ("batch", batch),
        ("loss", f"{loss} ({_average(problem, problem.reduction)})" if problem.reduction else loss),
        computed(problem),
    )


def _mode(problem: ModelSubject, *, as_it_came: bool) -> tuple[tuple[str, str], ...]:
    """Parameters, and the mode they were measured in, beside the one that the model came in where that is another.

    >>> mixed = ModelSubject(parameters=9, modules=12, modules_in_training=3)
    >>> _mode(mixed, as_it_came=False)[1]
    ('mode', 'eval (it came with 3 of 12 modules in train mode)')
    >>> _mode(mixed, as_it_came=True)[1]
    ('mode', 'eval; 3 of 12 modules in train mode')
    """
    frozen = f" ({number(problem.frozen)} more are frozen)" if problem.frozen else ""
    parameters, training = f"{number(problem.parameters)}{frozen}", problem.modules_in_training
    if problem.modules is None or training is None:
        return (("parameters", parameters + (", training mode" if problem.train_mode else "")),)
    measured = "train" if problem.train_mode else "eval"
    some = f"{training:,} of {counted(problem.modules, 'module')} in train mode"
    came = {problem.modules: "train", 0: "eval"}.get(training)
    if as_it_came and not problem.train_mode:
        said = came or f"eval; {some}"
    elif came == measured:
        said = measured
    else:
        said = f"{measured} (it came {f'in {came} mode' if came else f'with {some}'})"
    return ("parameters", parameters), ("mode", said)


def computed(problem: Subject) -> tuple[str, str]:
    """In which numbers, where and from which seed, as (name, value)."""
    seed = MISSING if problem.seed is None else problem.seed
    return "computed", f"{problem.dtype} on {problem.device}, seed {seed}"


def _average(problem: ModelSubject, reduction: str) -> str:
    """How the loss joins what it is a mean of, and batches, where there is more to say than its reduction.

    >>> from hessdiag.questions.common.result import AveragedOver
    >>> over = AveragedOver(what="targets", count=18.0)
    >>> two = ModelSubject(samples=8, batches=2, batch_weights=(0.25, 0.75), averaged_over=over)
    >>> _average(two, "mean")
    'mean over 18 targets in 2 batches, which weigh 0.25 and 0.75'
    """
    over, batches = problem.averaged_over, problem.batches
    if not over or reduction == "sum":
        return reduction if batches == 1 else f"{reduction} over {batches} batches"
    if batches == 1 and (over.what not in COUNTED or over.count == problem.samples):
        return reduction
    said = f"{reduction}, averaged" if reduction != "mean" else reduction
    count = int(over.count) if over.count == int(over.count) else over.count
    said += f" over {number(count, 4)} {over.what}"
    return said if batches == 1 else f"{said} in {batches} batches{_weights(problem.batch_weights or ())}"


def _weights(weights: Sequence[float]) -> str:
    low, high = min(weights), max(weights)
    if high - low <= ALIKE * high:
        return ""
    if len(weights) > FEW:
        return f", which weigh {low:.3g} to {high:.3g}"
    *most, last = (f"{weight:.3g}" for weight in weights)
    return f", which weigh {', '.join(most)} and {last}"


def _shape(shape: Shape | int) -> str:
    """Shape of one sample; of several inputs, each.

    >>> _shape([3, 32, 32]), _shape([[8], [4]]), _shape({"input_ids": [16]})
    ('3×32×32', '8 + 4', 'input_ids 16')
    """
    if isinstance(shape, dict):
        return " + ".join(f"{name} {_shape([*size])}" for name, size in shape.items())
    if isinstance(shape, int):
        return str(shape)
    if any(not isinstance(size, int) for size in shape):
        return " + ".join(_shape([*size] if isinstance(size, list) else size) for size in shape)
    return "×".join(map(str, shape)) or "1"


def warnings(result: Result) -> tuple[str, ...]:
    """What must be seen before any number is believed: a failed check, made-up data, a file's own code."""
    said = [BY_STATUS[result.status]] if result.status in BY_STATUS else []
    if isinstance(result.problem, ModelSubject) and result.problem.synthetic:
        said.append(
            "SYNTHETIC BATCH: no --data was given, so inputs and targets are random. "
            "The real ones may give other numbers."
        )
    if isinstance(result.problem, ModelSubject) and result.problem.trusted_code:
        said.append("TRUSTED CODE: --trust-code let a file run code of its own when it was loaded.")
    return tuple(said)


def signs(inertia: Inertia | None) -> str:
    """How many eigenvalues have each sign.

    >>> signs(Inertia(positive=1200, negative=3, zero=0, tolerance=0.0))
    '1,200 +, 3 −, 0 zero'
    """
    if inertia is None:
        return MISSING
    return f"{number(inertia.positive)} +, {number(inertia.negative)} −, {number(inertia.zero)} zero"


def findings(result: Result) -> tuple[Finding, ...]:
    """The verdict."""
    return tuple(Finding(found.level, found.says, found.because, found.remedy) for found in result.findings)


def side_tables(result: Result) -> tuple[Table, ...]:
    """The single values among what theory predicts, as far as there are any."""
    held = vars(result.theory) if dataclasses.is_dataclass(result.theory) else result.theory or {}
    rows = tuple(
        (name.replace("_", " "), _cell(value))
        for name, value in held.items()
        if value is None or isinstance(value, (str, int, float))
    )
    return (Table("Theory", ("quantity", "value"), rows),) if rows else ()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else number(value)


def self_checks(result: Result) -> tuple[SelfCheck, ...]:
    """What the measurement checked of itself, each with what it allows."""
    usual = result.check_tolerance if isinstance(result, Measured) else None
    return tuple(_self_check(name, value, result.thresholds.get(name, usual)) for name, value in result.checks.items())


def _self_check(name: str, value: float | None, allowed: float | None) -> SelfCheck:
    label, meaning = _words(name)
    return SelfCheck(
        label,
        deviation(value) if name.endswith("_z") else number(value, 2),
        number(allowed, 1) if allowed is None or allowed < 1 else f"{allowed:g}",
        _outcome(value, allowed),
        meaning,
    )


def _words(name: str) -> tuple[str, str]:
    if name in CHECKS:
        return CHECKS[name]
    ending, label, meaning = OF_INIT
    if name.endswith(ending):
        return f"{name.removesuffix(ending)}: {label}", meaning
    return name.replace("_", " "), ""


def _outcome(value: float | None, allowed: float | None) -> str:
    if value is None:
        return "not made"
    if allowed is None:
        return "no limit"
    return "passed" if abs(value) <= allowed else "FAILED"


def reproduction(problem: Subject, provenance: Provenance) -> Iterator[tuple[str, str]]:
    """What somebody needs who wants the same numbers, as (name, value)."""
    yield "versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    machine = [provenance.platform, provenance.device]
    machine += [] if provenance.threads is None else [counted(provenance.threads, "thread")]
    yield "machine", ", ".join(machine)
    yield "dtype and seed", f"{problem.dtype}, seed {MISSING if problem.seed is None else problem.seed}"
    if isinstance(problem, ModelSubject):
        yield from _files(problem)
    yield "kernels forced", ", ".join(provenance.kernels_forced or ()) or "none"
    if arithmetic := provenance.arithmetic:
        aside = f"; set aside: {', '.join(arithmetic.set_aside)}" if arithmetic.set_aside else ""
        digits = "" if arithmetic.repeatable else "; last digits vary from run to run on a GPU"
        yield "arithmetic", f"{arithmetic.float32} float32{aside}{digits}"
    if gpu := provenance.gpu:
        names = ("driver", "cuda", "cudnn")
        yield "GPU", ", ".join(f"{name} {gpu[name]}" for name in names if gpu.get(name) is not None)
    if provenance.resumed_pieces:
        yield "taken up", f"{number(provenance.resumed_pieces)} finished pieces of an earlier run"
    yield "started", provenance.started
    yield "wall time", f"{number(provenance.wall_seconds)} s"
    if provenance.peak_memory_bytes:
        yield "peak memory", f"{number(provenance.peak_memory_bytes / 2**20)} MiB"


def _files(problem: ModelSubject) -> Iterator[tuple[str, str]]:
    if problem.weights_sha256:
        yield "weights sha256", problem.weights_sha256
    if problem.data_sha256:
        yield "data sha256", problem.data_sha256
    for file in problem.files or ():
        yield f"sha256 of {file.path}", file.sha256
    if problem.trusted_code:
        yield "trusted code", "code inside a file was run, because --trust-code was given"


def metric_facts(metric: Metric | None) -> list[Fact]:
    """What a report shows of it."""
    if metric is None:
        return []
    said = f"; {source(metric)}" if metric.state else ""
    return [Fact("metric", metric.optimizer, f"numbers are of P^(-1/2) A P^(-1/2), not of A itself{said}")]


def spread(provenance: Provenance) -> tuple[tuple[str, str], ...]:
    """Over how many processes the model was spread, and how much memory each held, as (name, value); nothing of one.

    >>> from hessdiag.questions.common.result import Sharding
    >>> two = Sharding(processes=2, piece_bytes=8, largest_unit_bytes=4, peak_memory_bytes=(2**30, 3 * 2**29))
    >>> spread(Provenance(sharding=two))
    (('sharded', 'over 2 processes, at most 1.5 GiB each'),)
    """
    found = provenance.sharding
    if found is None:
        return ()
    over = f"over {found.processes:,} processes" if found.processes > 1 else "in one process"
    return (("sharded", f"{over}, at most {gib(max(found.peak_memory_bytes), 1)}{' each' * (found.processes > 1)}"),)
