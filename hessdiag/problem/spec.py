"""The grammar of MODEL, `--data` and `--loss`: text in, a `Spec` out.

Imports no torch. What lies on the disk changes no meaning; only what errors advise looks at it.
"""

import ast
import re
from dataclasses import dataclass, replace
from keyword import iskeyword
from pathlib import Path
from typing import Any, Literal

from hessdiag.errors import SpecError
from hessdiag.problem import nearby

RESERVED = ("builtin", "hf", "timm", "torchvision", "py", "file")

Kind = Literal["builtin", "hf", "timm", "torchvision", "script", "module", "file"]

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_BARE = re.compile(r"[\w-]+(\(.*\))?", re.DOTALL)
_OPTIONS = re.compile(r"\(\s*[A-Za-z_]\w*\s*=(?!=).*\)", re.DOTALL)  # at the end of a path: how its data are read


@dataclass(frozen=True)
class Spec:
    """What a spec's text says.

    Attributes:
        text: The spec as it was written.
        kind: Where it leads; `script` is `path.py:CALL`, `module` is `pkg.mod:CALL`.
        source: Name of the network, path of the file or dotted name of the module.
        attribute: What to take from a script or a module, `f` or `Class.method`; empty for other kinds.
        arguments: Keyword arguments in order; `None` where the text has no parentheses. Of a path they say how its data
            are read; a path after `file:` is taken as it is.
        key: What follows `#`: a dotted key inside a checkpoint, or the arrays of a data file.
        revision: What follows `@` in `hf:NAME@REV`.
    """

    text: str
    kind: Kind
    source: str
    attribute: str = ""
    arguments: tuple[tuple[str, Any], ...] | None = None
    key: str | None = None
    revision: str | None = None

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments as a mapping; empty where there are none."""
        return dict(self.arguments or ())


def parse(text: str) -> Spec:
    r"""Read a spec. Its kind depends on the text alone, never on what lies on the disk; nothing is executed.

    Args:
        text: `builtin:mlp(width=32)`, `train.py:setup`, `pkg.mod:f(k=1)`, `model.pt#ema`, `hf:NAME@REV`,
            `images/(size=224)`, ...

    Raises:
        SpecError: if the text fits no form, with the spellings that would.

    >>> parse("train.py:setup(width=32)").arguments
    (('width', 32),)
    >>> parse(r"C:\runs\model.pt#ema").key
    'ema'
    """
    text = text.strip()
    if not text or "\0" in text:
        raise SpecError(f"{text!r} is no spec.", "builtin:mlp, train.py:setup or model.pt")
    head, colon, body = text.partition(":")
    if colon and len(head) > 1 and body.startswith("//"):
        raise SpecError(f"{text!r} is an address, and hessdiag downloads nothing.", "the path of the downloaded file")
    if colon and head in RESERVED:
        if not body:
            raise SpecError(
                f"{text!r} names nothing after the colon.", f"{head}:{'NAME' if head != 'file' else 'PATH'}"
            )
        return _reserved(text, head, body)
    return _python(text, text) or _path(text, text)


def _reserved(text: str, prefix: str, body: str) -> Spec:
    if prefix == "py":
        spec = _python(text, body)
        if spec is None:
            raise SpecError(f"{text!r} has no function after the file or module.", f"{text}:setup")
        return spec
    if prefix == "file":
        source, key = _split_key(text, body)
        return Spec(text, "file", source, key=key)
    if prefix == "hf":
        name, arguments = _split_arguments(text, body)
        name, revision = _split_revision(text, name)
        return Spec(text, "hf", name, arguments=arguments, revision=revision)
    name, arguments = _split_arguments(text, body)
    kind: Kind = "builtin" if prefix == "builtin" else "timm" if prefix == "timm" else "torchvision"
    return Spec(text, kind, name, arguments=arguments)


def _python(text: str, body: str) -> Spec | None:
    """`path.py:CALL` or `pkg.mod:CALL`; `None` where the body is neither."""
    head, colon, call = body.partition(":")
    if colon and _is_module(head) and not _DRIVE.match(body):
        return _with_call(text, "module", head, call)
    if body.endswith((".py", ".py:")):
        path = body.removesuffix(":")
        likely = " or ".join(f"{path}:{name}" for name in nearby.models_in(path)[:2])
        means = likely or f"{path}:setup"
        hint = likely or f"{path}:setup, where setup() returns (model, batches, loss)"
        raise SpecError(f"{text!r} names a script, but nothing in it; did you mean {means}?", hint)
    stem, colon, call = body.partition(".py:")
    if colon and stem:
        return _with_call(text, "script", f"{stem}.py", call)
    return None


def _with_call(text: str, kind: Kind, source: str, call: str) -> Spec:
    attribute, arguments = _parse_call(text, call)
    return Spec(text, kind, source, attribute, arguments)


def _is_module(text: str) -> bool:
    return not text.endswith(".py") and all(part.isidentifier() for part in text.split("."))


def _path(text: str, body: str) -> Spec:
    if _BARE.fullmatch(body):
        name = body.partition("(")[0]
        if Path(name).exists():
            raise SpecError(f"{text!r} is a bare word, and a path needs ./ before it.", f"./{body}")
        raise SpecError(
            f"{text!r} is a bare word, which could mean several things.",
            f"builtin:{body}, timm:{body}, torchvision:{body}, hf:{name}, {name}.py:setup, or ./{name} for a file",
        )
    found = _OPTIONS.search(body)
    if found and found.start() and found.end() == len(body):
        return replace(_path(text, body[: found.start()]), arguments=_parse_call(text, f"f{found[0]}")[1])
    if ":" in body and not _DRIVE.match(body):
        raise SpecError(
            f"{text!r} is no path, no script or module with a function, and starts with none of {', '.join(RESERVED)}.",
            f"file:{text} if it is a file",
        )
    source, key = _split_key(text, body)
    return Spec(text, "file", source, key=key)


def _split_key(text: str, body: str) -> tuple[str, str | None]:
    """Path and key. A `#` that is followed by a separator belongs to the path."""
    path, mark, key = body.rpartition("#")
    if not mark or "/" in key or "\\" in key:
        return body, None
    if not path or not key:
        raise SpecError(f"{text!r} has an empty {'key' if path else 'path'} at '#'.", "model.pt#state_dict_ema")
    return path, key


def _split_arguments(text: str, body: str) -> tuple[str, tuple[tuple[str, Any], ...] | None]:
    """Name and keyword arguments of `NAME(key=LITERAL, ...)`."""
    if not body.endswith(")"):
        return body, None
    name, _, rest = body.partition("(")
    if not name:
        raise SpecError(f"{text!r} has no name before the parentheses.")
    return name, _parse_call(text, f"f({rest}")[1]


def _split_revision(text: str, name: str) -> tuple[str, str | None]:
    path_like = name.startswith((".", "/", "~")) or _DRIVE.match(name)
    source, mark, revision = name.rpartition("@") if path_like else name.partition("@")
    if not mark or (path_like and ("/" in revision or "\\" in revision)):
        return name, None
    if not source or not revision:
        raise SpecError(f"{text!r} has an empty {'revision' if source else 'name'} at '@'.", "hf:NAME@REVISION")
    return source, revision


def call_of(text: str, *, words: bool = False) -> tuple[str, tuple[tuple[str, Any], ...] | None]:
    """Dotted name and keyword literals of a call by itself, `NAME` or `NAME(key=LITERAL, ...)`.

    Args:
        text: The call.
        words: Whether a word without quotes is a literal, too, where nothing else could be meant.

    Raises:
        SpecError: if it is none.

    >>> call_of("adam(lr=1e-3)"), call_of("sgd")
    (('adam', (('lr', 0.001),)), ('sgd', None))
    """
    return _parse_call(text, text, words=words)


def _parse_call(text: str, call: str, *, words: bool = False) -> tuple[str, tuple[tuple[str, Any], ...] | None]:
    """Dotted name and keyword literals of a call, through the syntax tree; only literals are evaluated."""
    wrong = SpecError(
        f"{call!r} in {text!r} is not NAME or NAME(key=LITERAL, ...).", "train.py:setup(width=32, act='tanh')"
    )
    if words:  # `variant=global`: a word of Python's own is one, too
        call = re.sub(
            r"=\s*([a-z]+)\s*(?=[,)])", lambda found: f"={found[1]!r}" if iskeyword(found[1]) else found[0], call
        )
    try:
        node = ast.parse(call, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if ast.get_source_segment(call, node) != call:  # a comment, or parentheses around the whole
        raise wrong
    if not isinstance(node, ast.Call):
        return _dotted(node, wrong), None
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise SpecError(f"{call!r} in {text!r} has positional arguments; only keywords are taken.", "setup(width=32)")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        assert keyword.arg is not None
        if keyword.arg in arguments:
            raise SpecError(f"{text!r} gives {keyword.arg!r} twice.")
        if words and isinstance(keyword.value, ast.Name):
            arguments[keyword.arg] = keyword.value.id
            continue
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            raise SpecError(
                f"the value of {keyword.arg!r} in {text!r} is not a literal "
                "(a number, quoted string, tuple, list, dict, True, False or None).",
                f"{keyword.arg}='text' with quotes, if it is a string",
            ) from None
    return _dotted(node.func, wrong), tuple(arguments.items())


def _dotted(node: ast.expr, wrong: SpecError) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, wrong)}.{node.attr}"
    raise wrong
