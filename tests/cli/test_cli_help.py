"""`--help` in groups and 80 columns, names of metrics, and what is answered to a typing error."""

import re

import click
import pytest

from hessdiag.cli.help import GROUPS
from hessdiag.cli.main import COMMANDS, SYNONYMS, cli
from hessdiag.errors import SpecError
from hessdiag.problem.losses.loss import NAMES as LOSSES
from hessdiag.questions.metrics import ALIASES, MEANINGS, check
from hessdiag.questions.registry import question
from hessdiag.suggest import LOSSES as LOSS_ALIASES

MODELS = ("diag-share", "eigs", "spectrum", "bounds", "blocks", "precondition", "sharpness", "trust-radius")
MEASURING = (*MODELS, "forward", "vanishing", "chain", "escape", "transfer")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns(hessdiag, name):
    lines = hessdiag(*name.split(), "--help").out.splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", MEASURING)
def test_options_are_in_groups_and_examples_at_the_end(hessdiag, name):
    text = hessdiag(name, "--help").out
    titles = re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE)
    assert titles == [*(title for title in GROUPS if title in titles), "Examples"]
    assert {"Output", "Rarely needed"} <= set(titles)
    assert "What to compute" in titles
    assert text.index("\n  --json") > text.index("Output:")
    assert text.index("--traceback") > text.index("Rarely needed:")
    assert f"hessdiag {name}" in text.partition("Examples:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_shown_once(hessdiag, name):
    command = cli.get_command(click.Context(cli), name)
    first_group = "|".join(f"^{title}:" for title in GROUPS)
    text = re.split(first_group, hessdiag(name, "--help").out, maxsplit=1, flags=re.MULTILINE)[1]
    assert len({option.name for option in command.params}) == len(command.params)
    for option in command.params:
        if isinstance(option, click.Option):
            assert len(re.findall(rf"^  (?:-\w, )?{option.opts[-1]}\b", text, re.MULTILINE)) == 1, option.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_declared_twice(name):
    names = [option for one in cli.get_command(click.Context(cli), name).params for option in one.opts]
    assert len(names) == len(set(names))


def test_groups_hold_options_that_exist():
    known = {"help"}
    for name in COMMANDS:
        known |= {option.name for option in cli.get_command(click.Context(cli), name).params}
    assert {name for names in GROUPS.values() for name in names} <= known


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("forward", "[MODEL]"),
        ("vanishing", "[MODEL]"),
        ("escape", "[MODEL]"),
        ("eigs", "MODEL"),
        ("diag-share", "MODEL..."),
        ("ls", "[TOPIC] [COMMAND]"),
    ],
)
def test_optional_arguments_are_shown_as_such(hessdiag, name, usage):
    assert hessdiag(name, "--help").out.splitlines()[0] == f"Usage: hessdiag {name} [OPTIONS] {usage}"


@pytest.mark.parametrize("command", MEASURING)
def test_metrics_are_numbers_of_the_command(hessdiag, command):
    assert set(question(command).headlines) <= set(MEANINGS[command])
    for name in MEANINGS[command]:
        check(name, command)
    lines = hessdiag("ls", "metrics", command).out.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(MEANINGS[command])


def test_aliases_lead_to_metrics():
    known = {name for table in MEANINGS.values() for name in table}
    assert {name for names in ALIASES.values() for name in names} <= known
    assert set(SYNONYMS.values()) <= set(COMMANDS)
    assert set(LOSS_ALIASES.values()) <= set(LOSSES)


@pytest.mark.parametrize(
    ("command", "metric", "answer"),
    [
        ("eigs", "lambda_max", "largest"),
        ("eigs", "lambda-min", "smallest"),
        ("spectrum", "Lambda_Max", "highest"),
        ("bounds", "lambda_max", "measured.1"),
        ("spectrum", "condition_number", "condition"),
        ("eigs", "condition", "hessdiag spectrum"),
        ("diag-share", "lambda_max", "hessdiag eigs"),
        ("diag-share", "diag_shear", "diag_share"),
        ("eigs", "lowest.eigenvalue", "lowest.0.eigenvalue"),
        ("eigs", "method", "no number 'method'"),
        ("eigs", "lowest.0.converged", "no number"),
        ("bounds", "gershgorin.2", "no number"),
        ("vanishing", "rates.gradeint.per_layer", "rates.gradient.per_layer"),
        ("vanishing", "depths.0.theory_rms.gradeint", "no number"),
        ("vanishing", "zzz", "hessdiag ls metrics vanishing"),
    ],
)
def test_metrics_that_are_none_are_answered_with_the_nearest(command, metric, answer):
    with pytest.raises(SpecError) as caught:
        check(metric, command)
    assert answer in str(caught.value)


@pytest.mark.parametrize(
    "metric", ["lowest.7.eigenvalue", "inertia.negative", "hvps", "point.error", "highest.0.layer_weights.2"]
)
def test_numbers_that_a_result_can_have_are_let_pass(metric):
    check(metric, "eigs")


@pytest.mark.parametrize("metric", ["rates.vjp.per_layer", "depths.1.theory_rms.hessian", "depths.0.theory_median.vjp"])
def test_numbers_of_a_quantity_are_let_pass(metric):
    check(metric, "vanishing")


def test_gates_are_checked_before_work(hessdiag, fake):
    outcome = hessdiag("diag-share", "m.py:f", "--fail-if", "lambda_max > 3")
    assert (outcome.code, outcome.out, fake.requests) == (2, "", [])
    assert "hessdiag eigs ... --fail-if 'largest > 0'" in outcome.err


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (["vanishing", "--init", "he_norml"], "Did you mean he_normal?"),
        (["vanishing", "--init", "kaiming-uniform"], "Did you mean he_uniform?"),
        (["forward", "--activation", "rleu"], "Did you mean relu?"),
        (["spectrum", "builtin:lenet", "--operator", "gauss-newton"], "Did you mean ggn?"),
        (["eigs", "builtin:lenet", "--dtype", "double"], "Did you mean float64?"),
        (["hessian"], "Did you mean eigs?"),
        (["spectrm", "x"], "Did you mean spectrum?"),
        (["train.py:setup"], "hessdiag diag-share train.py:setup"),
        (["vanishing", "--deph", "3"], "--depth"),
        (["ls", "los"], "Did you mean losses?"),
    ],
)  # fmt: skip
def test_typing_errors_are_answered_with_the_nearest(hessdiag, args, answer):
    outcome = hessdiag(*args)
    assert outcome.code == 2
    assert answer in outcome.err
    assert len(outcome.err.splitlines()) <= 2


@pytest.mark.parametrize(("loss", "answer"), [("l2", "mse"), ("CrossEntropyLoss", "ce"), ("mes", "mse")])
def test_losses_are_answered_with_the_nearest(loss, answer):
    from hessdiag.problem.losses.loss import resolve

    with pytest.raises(SpecError) as caught:
        resolve(loss)
    assert caught.value.hint == f"--loss {answer}"
