"""Which commands take --shard, and what the others say."""

from importlib import import_module

import click
import pytest

from hessdiag.cli.main import COMMANDS, SHARDED, cli


def test_the_list_of_commands_that_take_pieces_is_theirs():
    commands = {name: import_module(module).command for name, (module, _) in COMMANDS.items()}
    taking = {name for name, command in commands.items() if any(item.name == "shard" for item in command.params)}
    assert taking == set(SHARDED)


def test_others_name_those_that_do():
    with pytest.raises(click.UsageError, match="diag-share has no --shard: it is for eigs, spectrum, blocks and"):
        cli(["diag-share", "builtin:mlp", "--shard"], standalone_mode=False)
    with pytest.raises(click.NoSuchOption, match="--shart"):
        cli(["diag-share", "builtin:mlp", "--shart"], standalone_mode=False)
