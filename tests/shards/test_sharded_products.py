"""Sharded products against whole ones, in float64, by one, two and four processes: one start of each for all models."""

import json
import os
import subprocess
import sys

import pytest

from tests.shards.sharded_cases import CASES


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each number of ranks measures, by case."""
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
    names = {"value", "gradient", "products", "one", "again", "dots", "symmetry", "padding", "untouched"}
    assert errors.keys() == names, errors
    assert {name: error for name, error in errors.items() if not error <= allowed} == {}
    assert errors["padding"] == errors["untouched"] == 0.0


@pytest.mark.parametrize("case", ["mlp", "gpt-2 untied", "attention"])
def test_several_vectors_take_the_exchanges_of_one(found, case):
    one, three = found[2][case]["exchanges"]
    assert three == one > 0


def test_a_unit_takes_two_exchanges_of_pieces_and_two_of_sums_per_product(found):
    assert found[2]["mlp"]["exchanges"][0] == 2 * 3 * (1 + 2 + 4)  # two batches, whose gradients are built anew
    assert found[1]["mlp"]["exchanges"] == [0, 0]


def test_units_are_enlarged_only_where_parameters_leave_them(found):
    assert found[2]["outside"]["units"] == ["twice", "head", "inner"]
    assert found[2]["root"]["units"] == [""]
    assert found[2]["gpt-2 tied"]["units"] == [
        *("transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.h.1", "transformer.h.2"),
        *("transformer.ln_f", "lm_head"),
    ]
