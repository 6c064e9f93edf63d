"""Documents that commands wrote (`renew` lists how), and what tests make of them: a value changed, many layers, long names."""

import copy
import functools
import re
from pathlib import Path
from typing import Any

from hessdiag.questions.documents import load_document

HERE = Path(__file__).parent
CURRENT = sorted(HERE.glob("*.json"))  # of this version, as `renew` writes them
EVERY = CURRENT + sorted(HERE.glob("*/*.json"))  # and of earlier ones
LAYER = re.compile(r"\bblocks\.(\d+)\.linear\b")


def document(name: str, /, **result: Any) -> dict[str, Any]:
    """One of them, with some values of its result changed. Each call gives another copy."""
    doc = copy.deepcopy(_read(name))
    doc["result"] |= result
    return doc


@functools.cache
def _read(name: str) -> dict[str, Any]:
    return load_document(HERE / f"{name}.json")


def renamed(value: Any, pattern: str) -> Any:
    """The same document of a network whose layers have other names."""
    if isinstance(value, dict):
        return {key: renamed(item, pattern) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, pattern) for item in value]
    return LAYER.sub(lambda found: pattern.format(int(found[1])), value) if isinstance(value, str) else value


def of_layers(doc: dict[str, Any], count: int) -> dict[str, Any]:
    """The same document of a network in which the layers are repeated until there are so many."""
    return doc | {"result": _LAYERS[doc["command"]](copy.deepcopy(doc["result"]), count)}


def _around(values: list[Any], count: int) -> list[Any]:
    return [copy.deepcopy(values[index % len(values)]) for index in range(count)]


def _names(count: int) -> list[str]:
    return [f"blocks.{index}.linear" for index in range(count)]


def _square(matrix: list[list[Any]], count: int) -> list[list[Any]]:
    return _around([_around(row, count) for row in matrix], count)


def _diag_share(result: dict[str, Any], count: int) -> dict[str, Any]:
    layers = [
        layer | {"name": name} for layer, name in zip(_around(result["layers"], count), _names(count), strict=True)
    ]
    total = sum(map(sum, _square(result["layer_block_matrix"], count)))
    matrix = [[value / total for value in row] for row in _square(result["layer_block_matrix"], count)]
    return result | {"layers": layers, "layer_block_matrix": matrix}


def _eigs(result: dict[str, Any], count: int) -> dict[str, Any]:
    for pair in result["lowest"] + result["highest"]:
        weights = _around(pair["layer_weights"], count)
        pair["layer_weights"] = [weight / sum(weights) for weight in weights]
    return result | {"layers": _names(count)}


_PER_LAYER = (
    "frobenius",
    "gauss_newton",
    "residual",
    "trace",
    "diagonal_mass",
    "kinds",
    "sizes",
    "depths",
    "weight_gains",
)


def _blocks(result: dict[str, Any], count: int) -> dict[str, Any]:
    def wide(value: Any, *, interval: bool) -> Any:
        if interval:
            return [wide(end, interval=False) for end in value]
        return _square(value, count) if isinstance(value[0], list) else _around(value, count)

    held = {
        key: wide(value, interval=key.endswith("_interval"))
        for key, value in result.items()
        if value is not None and key.removesuffix("_interval").removesuffix("_stderr") in _PER_LAYER
    }
    return result | held | {"names": _names(count)}


def _vanishing(result: dict[str, Any], count: int) -> dict[str, Any]:
    last = result["depths"][-1]
    deepest = copy.deepcopy(last) | {"depth": count}
    layers = [layer | {"layer": index + 1} for index, layer in enumerate(_around(result["layers"], count))]
    return result | {"depths": [one for one in result["depths"] if one["depth"] < count] + [deepest], "layers": layers}


def _bounds(result: dict[str, Any], count: int) -> dict[str, Any]:
    """Not layers but groups of discs: the one of the document, side by side with others like it."""
    low, high = result["gershgorin"]
    step = (high - low) / count
    pieces = [{"interval": [low + i * step, low + (i + 0.5) * step], "count": i + 1} for i in range(count)]
    return result | {"components": pieces, "parameters": sum(piece["count"] for piece in pieces)}


_LAYERS = {"diag-share": _diag_share, "eigs": _eigs, "blocks": _blocks, "vanishing": _vanishing, "bounds": _bounds}
