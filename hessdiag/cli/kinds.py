"""Types of options. What a configuration that was merely found may set follows from them: see `harmless`."""

import re
from typing import Any

import click

from hessdiag.cli.completes import Text
from hessdiag.curvature.registry import OPERATORS
from hessdiag.errors import SpecError
from hessdiag.questions.report.asked import seconds_of
from hessdiag.suggest import NAMES, question

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*(|B|[kKMGT]i?B)")
_UNITS = {"": 1, "B": 1} | {
    f"{unit}{binary}B": (1024 if binary else 1000) ** power
    for power, unit in enumerate("KMGT", 1)
    for binary in ("", "I")
}
_ALIASES = NAMES | {word: matrix.name for matrix in OPERATORS for word in matrix.synonyms}
SEED = click.IntRange(min=0, max=2**32 - 1)  # what every generator takes


class Names(click.Choice[str]):
    """A choice between names with underscores, which may also be typed with dashes."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        """The form in which names are shown and compared."""
        return str(choice).replace("-", "_")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name; an unknown one is answered with the nearest."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = question(str(value), map(str, self.choices), _ALIASES)
            raise click.BadParameter(f"{error.message}{near}", ctx, param) from None


class NumberOr(click.ParamType[Any]):
    """A positive whole number, or one word that stands for another choice."""

    name = "number"

    def __init__(self, word: str) -> None:
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number or the word."""
        if value == self.word:
            return self.word
        if isinstance(value, (int, str)) and not isinstance(value, bool) and str(value).isdecimal() and int(value):
            return int(value)
        raise click.BadParameter(f"{value!r} is neither a positive whole number nor {self.word!r}.", ctx, param)


class Numbers(click.ParamType[Any]):
    """A positive whole number, or several with commas between."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[int, ...]:
        """One number as it is, several as a tuple."""
        words = [word.strip() for word in str(value).split(",")] if not isinstance(value, tuple) else value
        if not all(str(word).isdecimal() and int(word) for word in words):
            reason = f"{value!r} is neither a positive whole number nor several with commas between."
            raise click.BadParameter(reason, ctx, param)
        return int(words[0]) if len(words) == 1 else tuple(int(word) for word in words)


class Size(click.ParamType[Any]):
    """Bytes, with or without a unit: 4GB, 500 MB, 1000000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        found = _SIZE.fullmatch(str(value))
        if not found or not (size := int(float(found[1]) * _UNITS[found[2].upper()])):
            raise click.BadParameter(f"{value!r} is no size such as 4GB, 500MB or 1000000.", ctx, param)
        return size


class Budget(click.ParamType[Any]):
    """Seconds, with or without a unit: 60s, 2min, 90; infinity for none."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of seconds."""
        try:
            return seconds_of(value)
        except SpecError as error:
            raise click.BadParameter(error.what, ctx, param) from None


class Switch(click.types.BoolParamType):
    """A flag that changes what is measured or shown, and neither what is trusted nor what is written."""


class Named(Text):
    """Text of which some is a choice between names; other text may be a spec, which names code or a file."""

    def __init__(self, choices: str) -> None:
        self.choices = re.compile(choices)


SWITCH = Switch()


def harmless(kind: click.ParamType[Any], value: Any) -> bool:
    """Whether an option of this type takes a number or a choice, so that a file that nobody named may set it.

    Text, paths and flags that are no `Switch` are not, nor is any type that is not known here.

    >>> harmless(click.INT, 3), harmless(Named("ce|mse"), "ce"), harmless(Named("ce|mse"), "x.py:f")
    (True, True, False)
    >>> harmless(click.STRING, "report.html"), harmless(click.Path(), "kept"), harmless(click.BOOL, True)
    (False, False, False)
    """
    if isinstance(kind, Named):
        return isinstance(value, str) and kind.choices.fullmatch(value) is not None
    numbers = (
        click.types.IntParamType,
        click.types.FloatParamType,
        NumberOr,
        Numbers,
        Budget,
    )  # ranges are among these
    return isinstance(kind, (*numbers, click.Choice, Switch))
