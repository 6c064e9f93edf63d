"""The page of optimizers says what the registry, the presets and the defaults say."""

import inspect
import re
from pathlib import Path

from hessdiag import optimizers
from hessdiag.optimizers import damped, presets
from hessdiag.optimizers.registry import OPTIMIZERS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "optimizers.md").read_text("utf-8")


def row(starts):
    (line,) = re.findall(rf"^\| {starts}.*$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_of_the_registry_has_its_row_and_no_other():
    assert re.findall(r"^\| `([\w-]+)` \| `\w+\(", PAGE, re.MULTILINE) == list(OPTIMIZERS)
    for name, entry in OPTIMIZERS.items():
        settings = ", ".join(f'{key}="{value}"' for key, value in entry.settings.items())
        returns = "loss, output" if entry.output else "loss"
        assert row(f"`{name}`") == [f"`{name}`", f"`{entry.kind}({settings})`", entry.says, returns]


def test_the_package_has_all_classes_of_the_registry():
    assert {*optimizers.__all__} == {"Step", *(entry.kind for entry in OPTIMIZERS.values())} == {*dir(optimizers)}


def test_presets():
    robust, paper, classic = (presets.preset(name, "uniform") for name in ("robust", "paper", "classic"))
    rmsprop = presets.preset("paper", "rmsprop")
    assert row("a step is taken")[1:] == ["1e-4", "0.01", "1e-4"]
    assert [one.eta[0] for one in (robust, paper, classic)] == [1e-4, 0.01, 1e-4]
    assert row("the radius grows")[1:] == [str(one.eta[1]) for one in (robust, paper, classic)]
    grows = [f"{one.gamma[0]:g}, {one.gamma[1]:g}" for one in (robust, paper, classic)]
    grows[1] += f"; RMSprop's {rmsprop.gamma[0]:g}, {rmsprop.gamma[1]:g}"
    assert row("grows by, shrinks by")[1:] == grows
    assert row("first radius")[2] == f"{paper.radius:g}; RMSprop's ellipsoid 1e-4"
    assert rmsprop.radius == 1e-4
    assert row("radii that a step may try")[1:] == [str(one.tries) for one in (robust, paper, classic)]
    assert row("largest radius")[2] == f"{paper.max_radius:g}"
    assert (robust.eps, paper.eps, robust.relative, paper.relative) == (3e-3, 1e-10, True, False)
    assert row("floor of the metric")[1].startswith("3e-3, relative")
    assert row("floor of the metric")[2] == "1e-10, absolute"


def test_damped_newton():
    for kind in (optimizers.NewtonCG, optimizers.GaussNewtonCG, optimizers.SaddleFreeNewton):
        default = {name: one.default for name, one in inspect.signature(kind).parameters.items()}
        assert row("sufficient decrease")[1] == "1e-4"
        assert default["decrease"] == 1e-4
        assert row("damping falls")[1] == "2/3, 3/2"
        assert (default["drop"], default["boost"]) == (2 / 3, 3 / 2)
        if "tolerance" in default:
            assert row("residual of a system")[1] == f"{default['tolerance']} of the gradient"
            assert row("most products of a system")[1] == str(default["products"])
        else:
            assert row("Lanczos steps")[1] == str(default["products"])
    assert row("first damping")[1].startswith("1e-2 of")
    assert damped.FIRST == 1e-2
    assert row("bounds of damping")[1] == "1e-12 and 1e3 of the same"
    assert (damped.LEAST, damped.MOST) == (1e-12, 1e3)
    assert (damped.TRUSTED, damped.DOUBTED) == (0.75, 0.25)
