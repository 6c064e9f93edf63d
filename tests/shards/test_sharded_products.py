"""Sharded products against whole ones, in float64, by one, two and four processes: one start of each for all models."""

import json
import os
import subprocess
import sys

import pytest

from tests.shards.forks import once
from tests.shards.sharded_cases import CASES


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each number of ranks measures, by case."""
    return once(tmp_path_factory, "products", lambda: _of_all(tmp_path_factory))


def _of_all(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.shards.sharded_cases", str(folder)]
    run = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return {size: json.loads((folder / f"{size}.json").read_text()) for size in (1, 2, 4)}


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_everything_is_as_of_the_whole(found, case, size):
    errors = found[size][case]["errors"]
    allowed = 1e-6 if case == "llama" else 1e-12  # whose norms are computed in float32
    names = {"value", "gradient", "products", "dots", "symmetry", "padding", "untouched", "kept"}
    names |= set() if size == 4 else {"one", "again"}
    assert errors.keys() == names, errors
    assert {name: error for name, error in errors.items() if not error <= allowed} == {}
    assert errors["padding"] == errors["untouched"] == 0.0


@pytest.mark.parametrize("case", ["mlp", "gpt-2 untied", "attention", "vision"])
def test_several_vectors_take_the_exchanges_of_one(found, case):
    assert found[2][case]["of one"] == found[2][case]["of three"] > 0


def test_a_unit_takes_two_exchanges_of_pieces_and_two_of_sums_per_product(found):
    met = 3 + 1  # in which all are found to be at the same unit, and at the end of the model
    assert found[2]["mlp"]["of one"] == 2 * (3 * (1 + 2 + 4) + met)  # two batches, whose gradients are built anew
    assert found[1]["mlp"]["of one"] == 0


def test_units_are_enlarged_only_where_parameters_leave_them(found):
    assert found[2]["outside"]["units"] == ["twice", "head", "inner"]
    assert found[2]["gpt-2 tied"]["units"] == [
        *("transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.h.1", "transformer.h.2"),
        *("transformer.ln_f", "lm_head"),
    ]


def test_modules_with_parameters_of_their_own_leave_their_children_units(found):
    assert found[2]["root"]["units"] == ["", "blocks.0", "blocks.2"]
    assert found[2]["vision"]["units"] == ["", "embed", "stage", "stage.blocks.0", "stage.blocks.1", "head"]
    assert found[2]["given a root's"]["units"] == ["", "given.a", "head", "finds.0"]
    assert found[2]["finds a root's"]["units"] == [""]  # a unit below uses what the graph would not lead to


def test_small_neighbours_are_joined_where_their_parent_runs_them(found):
    assert found[2]["joined"]["units"] == ["large", "pair", "passed.0", "passed.1"]
