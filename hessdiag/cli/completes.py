"""What a shell may offer for values: names of this package, and files where an option takes them."""

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

LOSSES = ("ce", "mse", "bce", "nll", "output")
TORCH = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "muon")  # of its many, those that are asked for
FILES = ("FILE", "PATH", "SPEC", "RESULT", "MODEL", "NAME|SPEC")


class Text(click.types.StringParamType):
    """Text that a shell can complete, by what the option is called and what its help says that it takes."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin so; for what may be a file, the shell's own files beside them."""
        metavar = param.metavar or ""
        if metavar == "DIR":
            return [CompletionItem(incomplete, type="dir")]
        # The sign for files comes first: shells then offer files where no name fits.
        files = [CompletionItem(incomplete, type="file")] if any(word in metavar for word in FILES) else []
        return [*files, *(CompletionItem(name) for name in _names(ctx, param) if name.startswith(incomplete))]


def _names(ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    if param.name in ("model", "models"):
        from hessdiag.nets import BUILTINS, TASKS

        return [f"builtin:{name}" for name in BUILTINS | TASKS]
    if param.name in ("optimizer", "optimizers", "metric"):
        from hessdiag.optimizers.registry import OPTIMIZERS

        return (*TORCH, *OPTIMIZERS)
    if param.name == "fail_if":
        from hessdiag.questions.metrics import MEANINGS

        return MEANINGS.get(ctx.info_name or "", {})
    return {"device": ("auto", "cpu", "cuda"), "loss": LOSSES, "data": ("builtin:digits",)}.get(param.name or "", ())


def completing(params: Iterable[click.Parameter]) -> None:
    """Let parameters that take plain text be completed."""
    for param in params:
        if type(param.type) is click.types.StringParamType:
            param.type = Text()
