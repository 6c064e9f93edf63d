"""The `hessdiag` group: finds commands without importing them, and owns the exit codes."""

import contextlib
import os
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from hessdiag.cli import signals, speech, streams
from hessdiag.cli.help import COMPLETE_VARIABLE
from hessdiag.cli.quiet import third_parties
from hessdiag.errors import ExitCode, HessdiagError, LoadError, SpecError
from hessdiag.files import reason
from hessdiag.machine import lost_gpu
from hessdiag.machine.ranks import local_size, ranks
from hessdiag.machine.shortage import ran_out, sentence
from hessdiag.packages import lacking
from hessdiag.questions.registry import QUESTIONS
from hessdiag.suggest import question
from hessdiag.version import __version__

# Short help stands here and in the registry, so that `hessdiag --help` need not import a single command.
COMMANDS = {
    **{asked.name: (f"{asked.package}.command", asked.help) for asked in QUESTIONS},
    "ls": ("hessdiag.cli.ls", "List built-in networks, losses, initializations and spec forms."),
    "env": ("hessdiag.cli.env", "Versions, devices and threads, for bug reports."),
    "init": ("hessdiag.cli.init", "Write a commented hessdiag.toml."),
    "completion": ("hessdiag.cli.completion", "Print the completion script of a shell."),
}
SYNONYMS = {  # what a command may be called by who looks for it, in the form in which names are compared
    **{synonym: asked.name for asked in QUESTIONS for synonym in asked.synonyms},
    "list": "ls",
    "version": "env",
    "config": "init",
}


MEANT = {  # what options are called elsewhere
    "-q": "--no-progress",
    "--quiet": "--no-progress",
    "--silent": "--no-progress",
    "--out": "--output",
    "--overwrite": "--force",
    "--cpu": "--device cpu",
    "--cuda": "--device cuda",
    "--gpu": "--device cuda",
    "--learning-rate": "--lr",
    "--checkpoint": "--weights",
    "--ckpt": "--weights",
    "--dataset": "--data",
}
FIRST_SPEAKS = 2.0  # seconds in which torchrun ends those that fail for the same reason as the first
SHARDED = ("eigs", "spectrum", "blocks", "sharpness")  # commands that take models in pieces


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, most used first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; an unknown one is answered with the nearest."""
        name = args[0].replace("_", "-")
        if name not in COMMANDS and not name.startswith("-"):
            what = f"there is no command {args[0]!r}."
            if any(sign in name for sign in ":./"):
                raise SpecError(f"{what} A MODEL comes after the command.", f"hessdiag diag-share {args[0]}")
            raise click.UsageError(what + question(args[0], COMMANDS, SYNONYMS), ctx)
        return super().resolve_command(ctx, [name, *args[1:]])

    def invoke(self, ctx: click.Context) -> int | None:
        """Run the command. Click would answer an interruption with an empty line of its own."""
        try:
            code: int | None = super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(signals.exit_code()) from None
        except click.NoSuchOption as error:
            raise _no_such(error, ctx.invoked_subcommand or "this command") from error
        return code

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments for the record before they are taken apart."""
        ctx.meta["hessdiag.argv"] = ["hessdiag", *args]
        return super().parse_args(ctx, args)


def _no_such(error: click.NoSuchOption, command: str) -> click.UsageError:
    """The same error, with what an option is called here that has another name elsewhere."""
    if error.option_name == "--shard":
        what = f"{command} has no --shard: it is for {', '.join(SHARDED[:-1])} and {SHARDED[-1]}."
        return click.UsageError(what, error.ctx)
    meant = MEANT.get(error.option_name, "")
    options = [name for param in error.ctx.command.params for name in param.opts] if error.ctx else []
    if meant.partition(" ")[0] not in options:
        return error
    return click.UsageError(f"no such option '{error.option_name}'. Did you mean '{meant}'?", error.ctx)


@click.command(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 80,
    },
    epilog=(
        "Exit codes: 0 done, 1 a gate is violated, 2 usage, 3 could not load or compute, "
        "4 not trustworthy, 130 interrupted, 143 terminated."
    ),
)
@click.version_option(__version__, "--version", message="hessdiag %(version)s")
@click.option("--traceback", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def cli() -> None:
    """Why will this network not train? How is it curved, and can an optimizer move from where it is initialized?

    \b
    hessdiag check train.py:setup --optimizer adam --lr 1e-3 --try
    hessdiag vanishing --depth 128 --width 32
    hessdiag diag-share model.pt --data batch.npz --loss ce -o report.html
    """  # noqa: D301


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code, a value of `ExitCode`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    with streams.prepared():
        try:
            return _outcome(args, int(_invoke(args) or ExitCode.OK))
        except HessdiagError as error:  # the help or the list that was asked for, on a full disk
            speech.error(error.what, error.hint)
            return error.exit_code


def _invoke(args: list[str]) -> int | None:
    try:
        with third_parties():
            code: int | None = cli.main(
                args=args, prog_name="hessdiag", standalone_mode=False, complete_var=COMPLETE_VARIABLE
            )
    except SystemExit as error:
        return _left(error)
    except (click.Abort, KeyboardInterrupt):
        return signals.exit_code()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return ExitCode.USAGE
    except Exception as error:
        if signals.received() is not None:  # code of others made something else of the interruption
            return signals.exit_code()
        if "--traceback" in args:
            traceback.print_exc()
        return _explain(error)
    return code


def _outcome(args: Sequence[str], code: int) -> int:
    """Say what a signal did: it ended the computation, or came when all was computed."""
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        return _interrupted(args, code)
    if signals.received() is not None and code not in (ExitCode.FAILED, ExitCode.USAGE):
        speech.say(f"{signals.word()}; the answer was computed, and is complete.")
        return signals.exit_code()
    return code


def _interrupted(args: Sequence[str], code: int) -> int:
    """Say that the command was interrupted, and how it goes on where finished pieces were kept; the exit code."""
    meeting = sys.modules.get("hessdiag.machine.meeting")
    if meeting is not None and (cause := meeting.ended()) is not None:  # torchrun stops those that are left
        if meeting.follow(cause):
            speech.error(cause.told(), cause.hint)
        return int(cause.code)
    if meeting is not None:
        meeting.last_words(f"was {signals.word()}.", None, code, own=not _is_a_follower())
    if _is_a_follower():
        return code  # the first of several processes speaks for all
    if any(argument.partition("=")[0] == "--resume" for argument in args):
        again = [] if "--force" in args else ["--force"]  # the files of -o and --save are there already
        writes = any(argument.startswith(("-o", "--output", "--save")) for argument in args)
        command = shlex.join([*_started_as(), *args, *(again if writes else [])])
        speech.say(f"{signals.word()}; finished pieces are kept.", f"  try: {command}")
    else:
        speech.say(signals.word())
    return code


def _started_as() -> list[str]:
    """How this run was started, as far as is known: by torchrun on one machine, or alone."""
    _, size = ranks()
    several = size > 1 and local_size() == size
    return ["torchrun", "--standalone", f"--nproc-per-node={size}", "-m", "hessdiag"] if several else ["hessdiag"]


def _is_a_follower() -> bool:
    """Whether this is one of several processes, and not the first."""
    with contextlib.suppress(HessdiagError):  # of nonsense in the environment, said elsewhere
        return ranks()[0] > 0
    return False


def _explain(error: Exception) -> int:
    """Say what went wrong in one or two lines, and give the exit code; of several processes the first to fail does."""
    meeting = sys.modules.get("hessdiag.machine.meeting")
    if meeting is None or not meeting.is_met():
        return _explain_unmet(error)
    error = meeting.cause(error)
    what, hint, code = _in_words(error)
    if isinstance(error, meeting.LostRankError):
        if meeting.follow(error.words):
            speech.error(what, hint)
        return int(error.words.code)
    words = meeting.last_words(what, hint, code)
    if words is not None:
        speech.error(words.told(), hint)
    return code


def _explain_unmet(error: Exception) -> int:
    """The same in a process that is alone, or has not met the others: they hear nothing of each other."""
    what, hint, code = _in_words(error)
    if _is_a_follower():
        if isinstance(error, click.UsageError) and not isinstance(error, click.BadParameter):
            return code  # all have the same command line, and the first speaks for all
        # The first one may have the same to say, and torchrun ends the others once it has.
        signals.as_usual()
        time.sleep(FIRST_SPEAKS)
    speech.error(what, hint)
    return code


def _in_words(error: Exception) -> tuple[str, str | None, ExitCode]:
    """What went wrong, what would work, and the exit code."""
    if isinstance(error, HessdiagError):
        return error.what, error.hint, error.exit_code
    if isinstance(error, click.ClickException):
        ctx = getattr(error, "ctx", None)
        what = _sentence(" ".join(error.format_message().split()))
        return what, f"{ctx.command_path if ctx else 'hessdiag'} --help", ExitCode.USAGE
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a name holds a NUL character, and no file can have such a name.", None, ExitCode.USAGE
    if isinstance(error, UnicodeEncodeError):
        what = f"a name holds {error.object[error.start : error.end]!r}, and no file can have such a name here."
        return what, None, ExitCode.USAGE
    return *_of_others(error), ExitCode.FAILED


def _of_others(error: Exception) -> tuple[str, str | None]:
    """The error of a library or of the system: what went wrong, and what would work."""
    package, hint = lacking(error), None
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        what, hint = "this command computes, and torch is not installed.", "pip install torch"
    elif package is not None:
        what, hint = f"this command needs {package[0]}.", package[1]
    elif ran_out(error):
        what, hint = f"{sentence(error)}.", "a smaller model or batch, or a machine with more memory"
    elif lost_gpu.is_lost(error):
        what, hint = lost_gpu.WHAT, lost_gpu.HINT
    elif isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        what = f"the system refused{where}: {reason(error)} (run with --traceback to see where)"
    else:
        first = (str(error).splitlines() or [""])[0]
        what = f"internal error: {type(error).__name__}: {first} (run with --traceback to see where)"
    return what, hint


def _sentence(text: str) -> str:
    return text if not text[:1].isupper() or text[1:2].isupper() else text[0].lower() + text[1:]


def _left(error: SystemExit) -> int:
    """What a SystemExit means: click's end of a completion, or the user's own code."""
    if COMPLETE_VARIABLE in os.environ:
        return error.code if isinstance(error.code, int) else ExitCode.OK
    what = f"the code that was loaded ended the program with sys.exit({error.code!r})."
    return _explain(LoadError(what, "put what runs on import under `if __name__ == '__main__':`"))
