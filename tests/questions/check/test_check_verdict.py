"""Sentences of the verdict: of a trial, and of what a cause explains."""

from dataclasses import replace

import pytest
from check_by_hand import healthy

from hessdiag.questions.check.cures.cure import Cure, unchanged
from hessdiag.questions.check.result import Cause, Symptom, Trial, TrialRun
from hessdiag.questions.check.verdict import findings
from hessdiag.questions.check.view import view
from hessdiag.report.view import Table

CAUSE = Cause(
    id="dead_units",
    layer="2",
    value=1.0,
    threshold=0.8,
    quantity="share of units",
    confidence=0.9,
    says="Layer 2 is dead.",
    remedy="Set its biases to 0.",
    symptoms=(
        Symptom(id="dead_units", layer="4", value=1.0, says="", more=1200),
        Symptom(id="loss_at_start", layer=None, value=9.0, says=""),
    ),
)
TRIAL = Trial(
    cure="biases to zero",
    cause="dead_units",
    layer="2",
    says="Sets the biases of layer 2 to zero.",
    code="",
    optimizer="SGD",
    steps=9,
    before=TrialRun(losses=(), final=2.3),
    after=TrialRun(losses=(), final=0.1),
    helped=True,
    because="By these losses.",
)


def test_a_cause_names_the_first_layer_of_each_symptom():
    (found,) = findings(healthy(causes=(CAUSE,)))
    assert (found.level, found.says, found.remedy) == ("bad", "Layer 2 is dead.", "Set its biases to 0.")
    assert found.because == (
        "share of units: 1.00, where 0.800 is the threshold; it explains dead_units (layer 4 and 1,200 more), "
        "loss_at_start"
    )
    assert findings(healthy(causes=(replace(CAUSE, confidence=0.69),)))[0].level == "warn"


def test_a_cure_that_helped_comes_after_its_cause():
    found = findings(healthy(causes=(CAUSE, replace(CAUSE, id="targets")), trial=TRIAL))
    assert [one.level for one in found] == ["bad", "ok", "bad"]
    assert found[1].says == "The cure was tried, and it helped. It sets the biases of layer 2 to zero."
    assert found[1].remedy == 'the change under "In your code"'


@pytest.mark.parametrize(
    ("others", "remedy"),
    [
        ((replace(CAUSE, id="targets"),), "the next cause, targets"),
        ((), "your own --optimizer and --lr, and more --batches"),
    ],
)
def test_a_cure_that_did_not_help_leads_to_the_next_cause_if_there_is_one(others, remedy):
    found = findings(healthy(causes=(CAUSE, *others), trial=replace(TRIAL, helped=False)))
    assert (found[1].level, found[1].remedy) == ("note", remedy)
    assert "did not help" in found[1].says


def test_two_cures_are_one_sentence():
    one, other = (Cure(name, says, "", unchanged) for name, says in (("a", "Does this."), ("b", "Trains so.")))
    assert (one.then(other).name, one.then(other).says) == ("a, and b", "Does this, and trains so.")


@pytest.mark.parametrize(
    ("trains", "level", "says"),
    [(True, "ok", "Nothing was found"), (None, "ok", "Nothing was found"), (False, "note", "Its loss does not fall")],
)
def test_a_loss_that_does_not_fall_is_no_health(trains, level, says):
    check = healthy(trains=trains, causes=())
    assert check.step is not None
    check = replace(check, step=replace(check.step, losses=(2.3,) * 31))
    (found,) = findings(check)
    assert found.level == level
    assert found.says.startswith(says)
    assert ("does not fall" in " ".join(view(check).headline)) == (trains is False)
    assert ("does not tell much" in found.because, "large enough" in found.because) == (trains is None, trains is False)


def test_a_layer_has_one_name_in_all_tables():
    check = healthy(causes=(replace(CAUSE, layer="net.body.2"),))
    check = replace(check, layers=tuple(replace(layer, layer=f"net.body.{layer.layer}") for layer in check.layers))
    tables = {block.title.split(",")[0]: block for block in view(check).blocks if isinstance(block, Table)}
    named = tables["Causes"].rows[0][1]
    assert (named, named.full) == ("2", "net.body.2")
    assert named in [row[0] for row in tables["Layers"].rows]
