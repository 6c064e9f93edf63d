"""Where an answer goes: the format, the file, the gates, and the exit code that follows from them."""

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hessdiag.errors import ExitCode, LoadError, SpecError
from hessdiag.report import document, gates
from hessdiag.report.render import SUFFIXES, render

DEFAULT_WIDTH = 100


@dataclass(frozen=True)
class Output:
    """Decided before anything is computed, so that an hour's work does not end in "file exists".

    Attributes:
        form: What stdout gets.
        file: File to write besides, with its format; `None` for none.
        color: "auto", "always" or "never".
        progress: Whether to show progress on stderr.
        allow_inexact: Whether untrustworthy numbers still end in 0.
        gates: Conditions under which the run fails.
        baseline: An earlier document to compare with.
        max_change: Largest relative change that is allowed against it.
    """

    form: str
    file: tuple[Path, str] | None
    color: str
    progress: bool
    allow_inexact: bool
    gates: tuple[gates.Gate, ...]
    baseline: document.Document | None
    max_change: float


def prepare(
    as_json: bool,
    form: str | None,
    file: str | None,
    force: bool,
    color: str,
    no_progress: bool,
    allow_inexact: bool,
    fail_if: Sequence[str],
    baseline: str | None,
    max_change: str,
) -> Output:
    """Check the options of the answer and join them.

    Raises:
        SpecError: if they contradict each other, the file may not be written, or a gate cannot be read.
        LoadError: if the baseline cannot be read.
    """
    if as_json and form not in (None, "json"):
        raise SpecError(f"--json and --format {form} contradict each other.", "only one of them")
    chosen = "json" if as_json else form
    return Output(
        form=chosen or "text",
        file=writable(Path(file), chosen, force=force) if file else None,
        color=color,
        progress=not no_progress and speaks(),
        allow_inexact=allow_inexact,
        gates=tuple(gates.parse(text) for text in fail_if),
        baseline=load(Path(baseline)) if baseline else None,
        max_change=gates.parse_change(max_change),
    )


def writable(path: Path, form: str | None = None, *, force: bool) -> tuple[Path, str]:
    """A file that may be written, with the format that its suffix (or else `form`) says.

    Raises:
        SpecError: if it may not be written, or its format is not known.
    """
    known = SUFFIXES.get(path.suffix.lower(), form)
    if known is None:
        raise SpecError(
            f"no format is known for {path.name}: its suffix must be one of {', '.join(SUFFIXES)}.",
            "-o report.html",
        )
    if path.is_dir():
        raise SpecError(f"{path} is a folder.", f"-o {path / 'report.html'}")
    if path.exists() and not force:
        raise SpecError(f"{path} exists.", "--force to overwrite it, or another name")
    if not path.parent.is_dir():
        raise SpecError(f"the folder {path.parent} does not exist.", f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise SpecError(f"the folder {path.parent} is not writable.")
    return path, known


def load(path: Path) -> document.Document:
    """Read a saved document.

    Raises:
        LoadError: if there is no such file, or it is not a document.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        hint = None if isinstance(error, OSError) else f"hessdiag diag-share {path} -o report.html, if it is a model"
        raise LoadError(f"cannot read {path}: {reason}.", hint) from None
    try:
        return document.loads(text)
    except LoadError as error:
        raise LoadError(f"{path}: {error.what}", error.hint) from None


def finish(doc: Mapping[str, Any], out: Output) -> int:
    """Write the answer to its places and decide how the command ends. Of several processes, rank 0 alone speaks."""
    if not speaks():
        return _exit_code(doc, out)
    if out.file is not None:
        path, form = out.file
        write_file(path, render(doc, form, width=DEFAULT_WIDTH))
    color = _wants_color(out.color)
    width = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
    write(render(doc, out.form, width=width, color=color))
    return _exit_code(doc, out)


def speaks() -> bool:
    """Whether this process reports: the only one, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def write(text: str) -> None:
    """Write to stdout; a reader that has gone (`| head`) is no error."""
    try:
        click.echo(text, nl=False, color=True)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit; let that go nowhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_file(path: Path, text: str) -> None:
    """Write a file whole or not at all, and say so.

    Raises:
        LoadError: if the file system refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise LoadError(f"cannot write {path}: {error.strerror}.", "-o with a path on another disk") from None
    click.echo(f"Wrote {path}", err=True)


def _wants_color(choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def _exit_code(doc: Mapping[str, Any], out: Output) -> int:
    if doc["status"] == "interrupted":
        return ExitCode.INTERRUPTED
    said = gates.violations(doc["result"], out.gates)
    if out.baseline is not None:
        said += gates.changes(doc, out.baseline, out.max_change)
    untrusted = doc["status"] == "inexact" and not out.allow_inexact
    if speaks():
        for sentence in said:
            click.echo(f"gate: {sentence}", err=True)
        if untrusted:
            what = "error: the numbers are not trustworthy; see the verdict."
            click.echo(f"{what}\n  try: --allow-inexact to accept them", err=True)
    if untrusted:
        return ExitCode.INEXACT
    return ExitCode.GATE if said else ExitCode.OK
