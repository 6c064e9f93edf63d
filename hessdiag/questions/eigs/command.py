"""`hessdiag eigs MODEL`: both ends of the spectrum, and the eigenvectors in a file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hessdiag.cli import output
from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.options import (
    MetricText,
    Target,
    metric_options,
    model_options,
    output_options,
    resume_option,
    shard_option,
)
from hessdiag.errors import SpecError

if TYPE_CHECKING:
    from types import ModuleType

    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common.runs.progress import Progress
    from hessdiag.questions.eigs.result import Eigs


@click.command("eigs", cls=Command)
@model_options
@shard_option
@click.option("--lowest", type=click.IntRange(min=0), metavar="K", default=5, show_default=True, help="Pairs below.")
@click.option("--highest", type=click.IntRange(min=0), metavar="K", default=5, show_default=True, help="Pairs above.")
@click.option("--tol", type=float, metavar="R", default=1e-3, show_default=True, help="Relative residual to reach.")
@click.option("--max-basis", type=click.IntRange(min=1), metavar="M", help="Most vectors held. Default: up to 400.")
@click.option(
    "--max-products",
    type=click.IntRange(min=1),
    metavar="N",
    default=5_000,
    show_default=True,
    help="Hessian products after which to give up.",
)
@click.option(
    "--block",
    type=click.IntRange(min=1),
    metavar="B",
    default=2,
    show_default=True,
    help="Vectors per product; 1 takes fewer, and cannot notice repeated eigenvalues.",
)
@click.option("--save", metavar="FILE.npz", help="Write eigenvalues and eigenvectors to FILE.npz.")
@metric_options
@resume_option
@output_options
def command(
    targets: tuple[Target, ...],
    lowest: int,
    highest: int,
    tol: float,
    max_basis: int | None,
    max_products: int,
    block: int,
    save: str | None,
    metric: MetricText | None,
    resume: str | None,
    out: output.Output,
) -> int:
    """How sharp is the loss, and which way does it curve down? The lowest and highest eigenpairs of the Hessian.

    Exact up to 2,000 parameters (10,000 on a GPU). Beyond, Lanczos in one Krylov space for both ends, with true
    residuals; Ctrl-C keeps the Ritz pairs found by then.

    \b
    hessdiag eigs model.pt --data batch.npz --loss ce
    hessdiag eigs model.pt --data batch.npz --loss ce --metric 'adam(lr=1e-3)'
    hessdiag eigs builtin:lenet --lowest 3 --highest 10 --save vectors.npz -o eigs.html
    """  # noqa: D301
    scripts: dict[Path, ModuleType] = {}
    if save is not None and any(target.request.get("shard") for target in targets):
        raise SpecError("--save writes whole vectors, and with --shard no process has one.", "without --save")
    file = None if save is None else _archive(Path(save), force=click.get_current_context().params["force"])

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Eigs":
        from hessdiag.questions.common.in_metric import asked_for
        from hessdiag.questions.eigs.measure import eigs

        return eigs(
            problem,
            lowest=lowest,
            highest=highest,
            tol=tol,
            max_basis=max_basis,
            max_products=max_products,
            block=block,
            seed=seed,
            progress=progress,
            keep_vectors=file is not None,
            resume=resume,
            metric=asked_for(metric, scripts),
        )

    def write(problem: "Problem", found: "Eigs") -> None:
        if file is not None:
            write_archive(file, found, [layer.stop for layer in problem.layer_slices])

    def unmeasured(problem: "Problem") -> "Eigs":
        from hessdiag.questions.common.in_metric import asked_for
        from hessdiag.questions.eigs.measure import unmeasured as nothing

        return nothing(problem, tol, asked_for(metric))

    return answer_of_model(targets, measure, out, write, unmeasured=unmeasured, scripts=scripts)


def _archive(path: Path, *, force: bool) -> output.Destination:
    if path.suffix.lower() != ".npz":
        better = output.beside(path, "vectors.npz")
        raise SpecError(f"eigenvectors are saved as .npz, not as {path.name}.", f"--save {better}")
    return output.writable(path, "npz", force=force, option="--save", usual="vectors.npz")


def write_archive(to: output.Destination, found: "Eigs", stops: list[int]) -> None:
    """Write values, residuals and vectors (lowest first, then highest), and which rows belong to which layer.

    In a metric there is its `scale` too: a vector times it is a direction of the parameters.

    Raises:
        OutputError: if the file system refuses.
    """
    import numpy as np

    assert found.vectors is not None
    pairs = (*found.lowest, *found.highest)
    arrays = {
        "values": np.array([pair.eigenvalue for pair in pairs]),
        "residuals": np.array([pair.residual for pair in pairs]),
        "vectors": found.vectors.cpu().numpy(),
        "lowest": np.array(len(found.lowest)),
        **({} if found.scale is None else {"scale": found.scale.cpu().numpy()}),
        "layers": np.array(found.layers),
        "layer_stops": np.array(stops),
    }
    output.save(to, lambda stream: np.savez(stream, **arrays), "--save")  # type: ignore[arg-type]
