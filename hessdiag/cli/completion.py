"""`hessdiag completion SHELL`: completion of commands, options and choices."""

import click
from click.shell_completion import get_completion_class

from hessdiag.cli.help import Command
from hessdiag.cli.main import COMPLETE_VARIABLE, cli
from hessdiag.cli.output import write


@click.command("completion", cls=Command)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the completion script of SHELL: bash, zsh or fish.

    \b
    eval "$(hessdiag completion bash)"               # in ~/.bashrc
    eval "$(hessdiag completion zsh)"                # in ~/.zshrc
    hessdiag completion fish > ~/.config/fish/completions/hessdiag.fish
    """  # noqa: D301
    found = get_completion_class(shell)
    assert found is not None
    write(found(cli, {}, "hessdiag", COMPLETE_VARIABLE).source() + "\n")
    return 0
