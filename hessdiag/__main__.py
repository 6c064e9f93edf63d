"""`python -m hessdiag` and the `hessdiag` console script."""

import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from hessdiag.cli import signals  # before all else: Ctrl-C may come early

    with signals.watched():
        _let_segments_grow()
        _hush_sockets()
        try:
            from hessdiag.cli.main import run
        except ImportError as error:  # the command line itself needs a package
            code = _refused(error)
        else:
            code = run()
    signals.leave(code)


def _refused(error: ImportError) -> int:
    from hessdiag.errors import ExitCode
    from hessdiag.packages import lacking

    package = lacking(error)
    if package is None:
        raise error
    sys.stderr.write(f"error: hessdiag needs {package[0]}.\n  try: {package[1]}\n")
    return ExitCode.FAILED


def _let_segments_grow() -> None:
    """Ask torch for memory of a GPU that leaves no fragments, unless the user has asked for anything."""
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # as it is called since torch 2.9, and was before
    if not any(name in os.environ for name in names):
        os.environ.update(dict.fromkeys(names, "expandable_segments:True"))


def _hush_sockets() -> None:
    """Of a lost process we say ourselves, in a line, what torch's sockets say in a stack trace each."""
    if os.environ.get("WORLD_SIZE"):
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


if __name__ == "__main__":
    main()
