"""`hessdiag completion SHELL`: completion of commands, options and choices."""

import click
from click.shell_completion import get_completion_class

from hessdiag.cli.help import COMPLETE_VARIABLE, Command
from hessdiag.cli.output import write


@click.command("completion", cls=Command)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the completion script of SHELL: bash, zsh or fish.

    \b
    eval "$(hessdiag completion bash)"               # in ~/.bashrc
    eval "$(hessdiag completion zsh)"                # in ~/.zshrc
    hessdiag completion fish > ~/.config/fish/completions/hessdiag.fish
    """  # noqa: D301
    found = get_completion_class(shell)
    assert found is not None
    write(found(ctx.find_root().command, {}, "hessdiag", COMPLETE_VARIABLE).source() + "\n")
    return 0
