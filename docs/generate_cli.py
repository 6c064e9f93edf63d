"""Write docs/reference/cli.md from the `--help` of every command."""

from pathlib import Path

from click.testing import CliRunner

from hessdiag.cli.main import COMMANDS, cli

PAGE = Path(__file__).parent / "reference" / "cli.md"
HEAD = """\
# Command line

This page is what `--help` prints; `python docs/generate_cli.py` writes it. How models, data and losses are named is in
[Your own model](../how-to/your-own-model.md), what the exit codes mean in [Exit codes](exit-codes.md).
"""


def reference() -> str:
    """The page."""
    sections = [HEAD]
    for name in ("", *COMMANDS):
        title = f"hessdiag {name}".strip()
        help_text = CliRunner().invoke(
            cli, [*name.split(), "--help"], prog_name="hessdiag", terminal_width=80, catch_exceptions=False
        )
        sections.append(f"## {title}\n\n```text\n{help_text.output.rstrip()}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
