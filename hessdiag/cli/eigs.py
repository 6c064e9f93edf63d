"""`hessdiag eigs MODEL`: both ends of the spectrum, and the eigenvectors in a file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hessdiag.cli.measure import Measurement, answer
from hessdiag.cli.options import Target, model_options, output_options
from hessdiag.cli.output import Output, speaks, writable
from hessdiag.errors import LoadError, SpecError

if TYPE_CHECKING:
    from hessdiag.cli.progress import Reporter
    from hessdiag.diagnostics.eigs import Eigs
    from hessdiag.problem.problem import Problem


@click.command("eigs")
@model_options
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
    out: Output,
) -> int:
    """How sharp is the loss, and which way does it curve down? The lowest and highest eigenpairs of the Hessian.

    Exact up to 2,000 parameters. Beyond, Lanczos in one Krylov space for both ends, with true residuals; Ctrl-C keeps
    the Ritz pairs found by then.

    \b
    hessdiag eigs model.pt --data batch.npz --loss ce
    hessdiag eigs builtin:lenet --lowest 3 --highest 10 --save vectors.npz -o eigs.html
    """  # noqa: D301
    file = None if save is None else _archive(Path(save), force=click.get_current_context().params["force"])

    def measure(problem: "Problem", seed: int, progress: "Reporter") -> Measurement:
        from hessdiag.diagnostics.eigs import eigs

        found = eigs(
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
        )
        if file is not None and speaks():
            write_archive(file, found, [layer.stop for layer in problem.layer_slices])
        return found

    return answer("eigs", targets, measure, out)


def _archive(path: Path, *, force: bool) -> Path:
    if path.suffix.lower() != ".npz":
        raise SpecError(f"eigenvectors are saved as .npz, not as {path.name}.", f"--save {path.with_suffix('.npz')}")
    return writable(path, "npz", force=force)[0]


def write_archive(path: Path, found: "Eigs", stops: list[int]) -> None:
    """Write values, residuals and vectors (lowest first, then highest), and which rows belong to which layer.

    Raises:
        LoadError: if the file system refuses.
    """
    import numpy as np

    assert found.vectors is not None
    pairs = (*found.lowest, *found.highest)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            np.savez(
                stream,
                values=np.array([pair.eigenvalue for pair in pairs]),
                residuals=np.array([pair.residual for pair in pairs]),
                vectors=found.vectors.cpu().numpy(),
                lowest=len(found.lowest),
                layers=np.array(found.layers),
                layer_stops=np.array(stops),
            )
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise LoadError(f"cannot write {path}: {error.strerror}.", "--save with a path on another disk") from None
    click.echo(f"Wrote {path}", err=True)
