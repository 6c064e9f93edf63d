"""Where an answer goes: the format, the file, the gates, and the exit code that follows from them."""

import os
import shlex
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click

from hessdiag import files
from hessdiag.cli import gates, signals
from hessdiag.cli.speech import columns, error, say
from hessdiag.errors import ExitCode, OutputError, SpecError
from hessdiag.machine.ranks import ranks
from hessdiag.packages import lacking
from hessdiag.questions import documents, metrics
from hessdiag.questions.common.result import Result
from hessdiag.questions.pages import render
from hessdiag.questions.registry import QUESTIONS
from hessdiag.report.document import Document, escaped
from hessdiag.report.formats import SUFFIXES

DEFAULT_WIDTH = 100
STDOUT, STDERR = 1, 2


@dataclass(frozen=True)
class Destination:
    """A file that may be written.

    Attributes:
        path: As it was given.
        form: What its suffix, or else --format, says.
        replace: Whether it may be there already.
    """

    path: Path
    form: str
    replace: bool


@dataclass(frozen=True)
class Output:
    """Decided before anything is computed, so that an hour's work does not end in "file exists".

    Attributes:
        form: What stdout gets.
        file: File to write besides; `None` for none.
        color: "auto", "always" or "never".
        progress: Whether to show progress on stderr.
        allow_inexact: Whether untrustworthy numbers still end in 0.
        gates: Conditions under which the run fails.
        baseline: An earlier document to compare with.
        max_change: Largest relative change that is allowed against it.
        exit_zero: Whether violated gates are only said.
    """

    form: str
    file: Destination | None
    color: str
    progress: bool
    allow_inexact: bool
    gates: tuple[gates.Gate, ...]
    baseline: Document | None
    max_change: float
    exit_zero: bool


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
    exit_zero: bool,
) -> Output:
    """Check the options of the answer and join them.

    Raises:
        SpecError: if they contradict each other, the file may not be written, or a gate cannot be read.
        LoadError: if the baseline cannot be read.
    """
    if as_json and form not in (None, "json"):
        raise SpecError(f"--json and --format {form} contradict each other.", "only one of them")
    ranks()  # a leftover RANK is said before anything is computed
    if not _is_there():
        raise SpecError(
            "the current folder was deleted, and libraries look for theirs from it.", "cd to one that exists"
        )
    chosen = "json" if as_json else form
    return Output(
        form=chosen or "text",
        file=writable(Path(file), chosen, force=force) if file else None,
        color=color,
        progress=not no_progress and speaks(),
        allow_inexact=allow_inexact,
        gates=_gates(fail_if, click.get_current_context().info_name or ""),
        baseline=_baseline(baseline, click.get_current_context().info_name or "") if baseline else None,
        max_change=gates.parse_change(max_change),
        exit_zero=exit_zero,
    )


def _gates(texts: Sequence[str], command: str) -> tuple[gates.Gate, ...]:
    """The gates, each on a number that a result of the command can have; `report` shows those of any, and looks."""
    usual = next((asked.headlines[0] for asked in QUESTIONS if asked.name == command and asked.headlines), "diag_share")
    found = tuple(gates.parse(text, usual) for text in texts)
    for gate in found if command != documents.REPORT else ():
        metrics.check(gate.metric, command)
    return found


def _baseline(file: str, command: str) -> Document:
    """The document of `--baseline`, of this command; `report` shows results of any, and looks later."""
    found = documents.load_document(Path(file))
    if command != documents.REPORT:
        gates.check_baseline(command, found)
    return found


def _is_there() -> bool:
    """Whether the current folder still exists: MKL, for one, ends the process where it does not."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def writable(
    path: Path,
    form: str | None = None,
    *,
    force: bool,
    option: str = "-o",
    usual: str = "report.html",
    instead: str | None = None,
) -> Destination:
    """A file that may be written: one that is new, or may be replaced; a device, a pipe or a descriptor.

    Args:
        path: The file; - for stdout.
        form: Its format, where the suffix says none.
        force: Whether a regular file that exists may be replaced.
        option: Which option named it, for the message.
        usual: What such a file may be called, for the message.
        instead: What to do in the place of naming another file, where no option names it.

    Raises:
        SpecError: if it may not be written, or its format is not known.
    """
    if str(path) == "-":
        path = Path("/dev/stdout")
    try:
        there, own = files.status(path), files.descriptor(path)
        folder = Path(os.path.realpath(path)).parent
        around = files.status(folder)
    except (OSError, ValueError) as failure:
        raise SpecError(
            f"cannot write {path}: {files.reason(failure)}.", instead or f"{option} with another name"
        ) from None
    special = own is not None or (there is not None and not stat.S_ISREG(there.st_mode))
    known = SUFFIXES.get(path.suffix.lower(), form) or ("text" if special else None)
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise SpecError(f"{path} is a folder.", instead or f"{option} {shlex.quote(str(path / usual))}")
    if known is None:
        raise SpecError(
            f"no format is known for {path.name}: its suffix must be one of {', '.join(SUFFIXES)}.",
            f"{option} {usual}",
        )
    if special:
        _check_special(path, there, own, instead or f"{option} {usual}")
        return Destination(path, known, replace=True)
    if there is not None and not force:
        raise SpecError(f"{path} exists.", f"--force to overwrite it, or {instead or 'another name'}")
    if around is None or not stat.S_ISDIR(around.st_mode):
        raise SpecError(f"the folder {folder} does not exist.", f"mkdir -p {shlex.quote(str(folder))}")
    if not os.access(folder, os.W_OK):
        raise SpecError(f"the folder {folder} is not writable.", instead or f"{option} with a path into another folder")
    return Destination(path, known, replace=force)


def beside(path: Path, usual: str) -> str:
    """A file of the usual suffix that may be written instead of one of another: in that folder, or beside that file."""
    suffix = Path(usual).suffix
    if path.is_dir():
        better = path / usual
    elif path.exists() and not path.is_file():  # nothing is written beside devices
        better = Path(usual)
    else:
        better = path.parent / f"{path.stem or Path(usual).stem}{suffix}"
    return shlex.quote(str(better))


def _check_special(path: Path, there: os.stat_result | None, own: int | None, instead: str) -> None:
    """Refuse what cannot be written to, and whole disks."""
    if own is None and there is not None:
        if stat.S_ISBLK(there.st_mode) or stat.S_ISSOCK(there.st_mode):
            what = "disk" if stat.S_ISBLK(there.st_mode) else "socket"
            raise SpecError(f"{path} is a {what}: an answer is not written to it.", instead)
        if not os.access(path, os.W_OK):
            raise SpecError(f"{path} is not writable.", instead)
    elif own is not None and there is None:
        raise SpecError(f"{path} is not open.", instead)


def finish(
    answer: Result | Document, out: Output, save: Callable[[], None] | None = None, *, computed: bool = True
) -> int:
    """Write the answer to its places and decide how the command ends. Of several processes, rank 0 alone speaks.

    Every place is tried, whatever became of the others: nothing that was computed is lost to a full disk.

    Args:
        answer: A result, or a saved one's document.
        out: Where it goes.
        save: Writes what belongs beside it, such as eigenvectors.
        computed: Whether the answer was just made, and is kept nowhere else.

    Raises:
        Exception: the last of what failed; the others are said.
    """
    if not speaks():
        return _exit_code(answer, out)
    failures: list[Exception] = []
    for deliver in (lambda: _print(answer, out, computed), lambda: _write(answer, out), save):
        try:
            if deliver is not None:
                deliver()
        except Exception as failure:  # what goes wrong in one format says nothing of the next
            failures.append(failure)
    for earlier in failures[:-1]:
        error(str(getattr(earlier, "what", earlier)), getattr(earlier, "hint", None))
    if failures:
        raise failures[-1]
    return _exit_code(answer, out)


def _print(answer: Result | Document, out: Output, computed: bool) -> None:
    """Print the answer; as JSON, where its format fails."""
    if out.file is not None and files.descriptor(out.file.path) == STDOUT:
        return  # printed once, by `_write`
    try:
        text = render(answer, out.form, width=columns(), color=_wants_color(out.color))
    except Exception as failure:
        if not computed or out.form == "json":
            raise
        write(render(answer, "json"))
        raise OutputError(
            f"the answer could not be rendered as {out.form} ({_named(failure)}); it was printed as JSON.",
            f"{_mended(failure)}--json > r.json, then hessdiag report r.json once that is mended",
        ) from failure
    write(text if out.form != "json" else _encodable(text))


def _write(answer: Result | Document, out: Output) -> None:
    """Write the file of -o, if there is one."""
    if out.file is None:
        return
    try:
        text = render(answer, out.file.form, width=DEFAULT_WIDTH)
    except Exception as failure:
        raise OutputError(
            f"cannot write {out.file.path}: the answer could not be rendered as {out.file.form} ({_named(failure)}).",
            f"{_mended(failure)}-o r.json, then hessdiag report r.json once that is mended",
        ) from failure
    write_file(out.file, text)


def _mended(failure: Exception) -> str:
    package = lacking(failure)
    return "" if package is None else f"{package[1]}; or "


def _named(failure: Exception) -> str:
    if (package := lacking(failure)) is not None:
        return f"it needs {package[0]}"
    first = (str(getattr(failure, "what", failure)).splitlines() or [""])[0]
    return f"{type(failure).__name__}: {first}"


def _encodable(text: str) -> str:
    """JSON in an encoding without Unicode: by its escapes, not by question marks."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return escaped(text)
    return text


def speaks() -> bool:
    """Whether this process reports: the only one, or rank 0 of those that torchrun started."""
    return ranks()[0] == 0


def write(text: str) -> None:
    """Write to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_file(to: Destination, text: str) -> None:
    """Write a file whole or not at all, and say so.

    Raises:
        OutputError: if the file system refuses.
    """
    save(to, lambda stream: stream.write(text.encode("utf-8")), "-o")


def save(to: Destination, fill: Callable[[BinaryIO], object], option: str) -> None:
    """Write a file by what `fill` writes into it, and say so.

    Raises:
        OutputError: if the file system refuses.
    """
    own = files.descriptor(to.path)
    if own in (STDOUT, STDERR):
        sys.stdout.flush()
    try:
        files.write(to.path, fill, replace=to.replace)
    except FileExistsError:
        raise OutputError(
            f"cannot write {to.path}: it appeared meanwhile.",
            "--force to overwrite it, or another name",
        ) from None
    except BrokenPipeError:
        return  # a reader that has gone is no error
    except (OSError, ValueError) as failure:
        raise OutputError(
            f"cannot write {to.path}: {files.reason(failure)}.", f"{option} with a path on another disk"
        ) from None
    if own is None:
        say(f"Wrote {to.path}")


def _wants_color(choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def _exit_code(answer: Result | Document, out: Output) -> int:
    status = answer["status"] if isinstance(answer, dict) else answer.status
    if status == "interrupted":
        return signals.exit_code()
    said = _violations(answer, out) if out.gates or out.baseline is not None else []
    untrusted = status == "inexact" and not out.allow_inexact
    if speaks():
        for sentence in said:
            say(f"gate: {sentence}")
        if untrusted:
            error("the numbers are not trustworthy; see the verdict.", "--allow-inexact to accept them")
    if untrusted:
        return ExitCode.INEXACT
    return ExitCode.GATE if said and not out.exit_zero else ExitCode.OK


def _violations(answer: Result | Document, out: Output) -> list[str]:
    """One sentence for each gate that the answer violates, and for each number too far from the baseline's."""
    doc = documents.numbers_of(answer)
    said = gates.violations(doc["result"], out.gates)
    if out.baseline is not None:
        said += gates.changes(doc, documents.numbers_of(out.baseline), out.max_change)
    return said
