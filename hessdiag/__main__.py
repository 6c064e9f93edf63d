"""`python -m hessdiag` and the `hessdiag` console script."""

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from hessdiag.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()
