"""`python -m hessdiag` and the `hessdiag` console script."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    from hessdiag.cli import signals  # before all else: Ctrl-C may come early

    with signals.watched():
        from hessdiag.cli.main import run

        code = run()
    signals.leave(code)


if __name__ == "__main__":
    main()
