from dataclasses import replace

import escape_by_hand as by_hand
import pytest

from hessdiag.questions.escape.result import Escape
from hessdiag.questions.escape.verdict import findings
from hessdiag.questions.escape.view import view


def the(result, *words):
    """The one finding that says all of these words."""
    found = [finding for finding in findings(result) if all(word in finding.says for word in words)]
    assert len(found) == 1, [finding.says for finding in findings(result)]
    return found[0]


def race(*runs, **changes):
    names = list(dict.fromkeys(run.optimizer for run in runs))
    contenders = [
        by_hand.contender(name, runs, "second" if name.startswith("tr-") else "first", lr=runs[0].settings.get("lr"))
        for name in names
    ]
    contenders.sort(key=lambda one: one.backprops or 1e9)
    seeds = 1 + max(run.seed for run in runs)
    usual = {"plateaus": tuple(by_hand.plateau(seed) for seed in range(seeds))}
    return by_hand.result(runs=tuple(runs), contenders=tuple(contenders), **(usual | changes))


def test_who_is_first_and_what_to_train_with():
    first = the(by_hand.result(), "gets through first")
    assert first.level == "ok"
    assert first.says == "tr-rmsprop gets through first, in 21 backpropagations (3 of 3 runs)."
    assert first.because == "then rmsprop 23, tr-uniform 30"
    assert first.remedy.startswith("train with rmsprop(lr=0.001)"), "one of first order costs less a step"


def test_who_stays_is_a_note_unless_he_was_named():
    for named, level in ((False, "note"), (True, "bad")):
        muon = the(by_hand.result(named=named), "muon", "stays on the plateau")
        assert muon.level == level
        assert "acts as SGD with step 4.85e9 lr" in muon.because
        assert "rmsprop(lr=0.001)" in muon.remedy
    assert findings(by_hand.result(named=True))[0].level == "bad", "the most severe comes first"


def test_some_runs_of_several_are_counted():
    assert the(by_hand.result(), "tr-uniform", "stays").says == "tr-uniform stays on the plateau in 1 of 3 runs."


def test_a_floor_above_the_gradient_names_an_epsilon():
    runs = (by_hand.run("adam", 0, None, lr=1e-3),)
    note = "eps 1e-8 is above the median |g_i| 4e-9: acts as SGD"
    floored = by_hand.contender("adam", runs, lr=1e-3, floor=1e-8, notes=(note,))
    result = by_hand.result(seeds=1, runs=runs, contenders=(floored,), named=True)
    assert the(result, "adam(lr=0.001)", "stays").remedy.startswith("eps=4e-11 in the optimizer")
    free = by_hand.result(seeds=1, runs=runs, contenders=(replace(floored, floor=1e-12),))
    assert "eps" not in the(free, "adam(lr=0.001)", "stays").remedy


def test_a_late_prediction_explains_who_stays_and_counts_as_held():
    result = by_hand.result()
    assert "predicted after 4.6e9 [2.5e9 to 2.9e10] steps" in the(result, "sgd(lr=0.1)", "stays").because
    held = the(result, "predictions held")
    assert (held.level, held.says) == ("ok", "All 6 predictions held.")


def test_a_law_that_fails_is_told_with_both_numbers():
    result = race(
        by_hand.run("rmsprop", 0, 20, predicted=by_hand.GROWTH),
        by_hand.run("rmsprop", 1, 200, predicted=by_hand.GROWTH),
    )
    law = the(result, "held")
    assert (law.level, law.says) == ("note", "1 of 2 predictions held.")
    assert law.because == "rmsprop escaped in 200 steps, predicted were 31 [14 to 140]"


def test_nobody_gets_out():
    result = race(by_hand.run("sgd", 0, None), by_hand.run("adam", 0, None))
    nobody = the(result, "None of 2 optimizers leaves the plateau within 400")
    assert nobody.level == "warn"
    assert "came down to 1.00 of the reference, and 0.9 is out" in nobody.because
    assert not [one for one in findings(result) if "stay" in one.says], "said already"
    slope = race(by_hand.run("sgd", 0, None), plateaus=(by_hand.plateau(present=False),))
    assert the(slope, "sgd does not get below 0.9 of the loss within 400 backpropagations")
    alone = race(by_hand.run("sgd", 0, None), named=True)
    assert the(alone, "sgd does not leave the plateau").level == "bad", "it is his own"


def test_a_budget_that_ends_within_the_band():
    later = replace(by_hand.GROWTH, typical=900.0, low=300.0, high=5120.0)
    result = race(by_hand.run("sgd", 0, None, predicted=later))
    finding = the(result, "may still leave")
    assert finding.remedy == "--budget 5200"
    assert "and 400 were made" in finding.because


def test_no_plateau_and_dead_networks_are_told_from_plateaus():
    usual = by_hand.result()
    assert not [one for one in findings(usual) if "no plateau" in one.says or "dead" in one.says]
    none = by_hand.result(seeds=1, plateaus=(by_hand.plateau(present=False, says="the gradient is large"),))
    assert the(none, "This is no plateau").because == "the gradient is large"
    dead = by_hand.result(seeds=1, plateaus=(by_hand.plateau(present=False, dead=True, gradient_norm=0.0, says=""),))
    (finding,) = findings(dead)
    assert finding.level == "bad"
    assert "no optimizer mends that" in finding.says
    assert finding.remedy.startswith("hessdiag check MODEL --try")
    some = by_hand.result(
        plateaus=(by_hand.plateau(0, dead=True, present=False), by_hand.plateau(1), by_hand.plateau(2))
    )
    assert the(some, "1 of 3 networks are dead").level == "warn"


@pytest.mark.parametrize(
    ("state", "words", "remedy"),
    [("trained", "trained already", "--weights"), ("minimum", "at a minimum", "check"), ("slope", "no plateau", "")],
)
def test_starts_without_a_plateau_are_told_apart(state, words, remedy):
    nobody = race(by_hand.run("sgd", 0, None), plateaus=(by_hand.plateau(present=False, state=state),))
    told = the(nobody, words)
    assert remedy in told.remedy
    assert bool(told.remedy) == bool(remedy)
    assert not [one for one in findings(nobody) if "can fall at once" in one.says]
    mixed = race(
        by_hand.run("sgd", 0, None),
        by_hand.run("sgd", 1, None),
        plateaus=(by_hand.plateau(0), by_hand.plateau(1, present=False, state=state)),
    )
    assert the(mixed, words).says.startswith("1 of 2 networks start on no plateau.")


def test_a_way_out_is_said_once_and_as_the_remedy():
    runs = (by_hand.run("adam", 0, None), by_hand.run("rmsprop", 0, 30))
    note = 'Adam\'s eps 1e-08 is above the median |g_i|, 4e-9: acts as SGD. Try --optimizer "adam(eps=1e-30)".'
    floored = by_hand.contender("adam", runs[:1], lr=1e-3, floor=1e-8, notes=(note,))
    through = by_hand.contender("rmsprop", runs[1:], lr=1e-3)
    stays = the(by_hand.result(seeds=1, runs=runs, contenders=(through, floored)), "adam", "stays")
    assert stays.remedy == '--optimizer "adam(eps=1e-30)", or rmsprop(lr=0.001)'
    assert stays.because.startswith("Adam's eps 1e-08")
    assert "Try" not in stays.because


def test_nobody_on_a_slope_stays_on_no_plateau():
    runs = (by_hand.run("sgd", 0, None), by_hand.run("adam", 0, 30))
    result = race(*runs, plateaus=(by_hand.plateau(present=False, state="slope"),))
    assert the(result, "sgd is not below 0.9 of the loss")
    assert not [one for one in findings(result) if "on the plateau" in one.says]


def test_who_kills_the_network_or_diverges():
    result = race(
        by_hand.run("muon", 0, None, outcome="dead"),
        by_hand.run("muon", 1, 30),
        by_hand.run("sgd", 0, None, outcome="diverged"),
        by_hand.run("sgd", 1, None, outcome="diverged"),
    )
    assert the(result, "muon kills the network", "in 1 of 2 runs").level == "warn"
    assert the(result, "sgd diverges in 2 of 2 runs").level == "note"
    assert not [one for one in findings(result) if "stays" in one.says]


def test_a_gradient_that_is_zero_at_the_minimum_kills_nobody():
    losses, at = (0.499, 0.1, 1e-9), tuple(by_hand.spent(step) for step in (0, 10, 20))
    done = by_hand.run("tr-rmsprop", 0, 9, outcome="dead", loss=losses, at=at, final_loss=1e-9)
    assert not [one for one in findings(race(done)) if "kills" in one.says]
    assert the(race(replace(done, final_loss=1e-3)), "kills the network")


def test_a_model_that_is_wrong_is_named():
    finding = the(by_hand.result(), "quadratic model is wrong for tr-uniform")
    assert "below 1/4 in 81 %" in finding.because
    assert "trust-radius" in finding.remedy


@pytest.mark.parametrize("status", ["ok", "interrupted"])
def test_time_and_interrupts(status):
    runs = (by_hand.run("tr-rmsprop", 0, 6, products=2), by_hand.run("sgd", 0, None, outcome="stopped"))
    result = race(*runs, status=status)
    if status == "interrupted":
        assert "2 runs stand here" in the(result, "Interrupted").says
        assert not [one for one in findings(result) if "too short" in one.says]
    else:
        assert the(result, "too short").because == "stopped while it ran: sgd"
    (nothing,) = findings(Escape(status="interrupted"))
    assert "0 runs" in nothing.says
    assert findings(Escape()) == []


def test_left_out_for_time():
    assert (
        the(by_hand.result(too_slow=("tr-adagrad: 12 s a step",)), "too short").because
        == "left out: 1 entry, see the table"
    )


def test_scores_and_synthetic_data():
    runs = (by_hand.run("adam", 0, None, score=15.1), by_hand.run("lodo", 0, None, score=8.93))
    result = race(*runs, score_window=(0.9, 1.0))
    (finding,) = findings(result)
    assert finding.says == "lodo has the smallest mean loss, 8.930."
    assert finding.because == "then adam 15.10"
    made_up = by_hand.result(problem=replace(by_hand.SUBJECT, synthetic=True))
    assert the(made_up, "synthetic").level == "note"


def test_every_finding_says_a_number_or_what_to_do():
    for finding in findings(by_hand.result(named=True)):
        assert finding.says.endswith(".")
        assert finding.because
        assert finding.remedy or finding.level == "ok"


def test_nothing_is_said_of_who_stays_where_all_diverged():
    said = [one.says for one in findings(race(by_hand.run("sgd", 0, None, outcome="diverged")))]
    assert said == ["sgd diverges in 1 of 1 run."]


def test_a_run_that_was_stopped_is_not_counted_among_those_that_stay():
    runs = (
        by_hand.run("sgd", 0, None),
        by_hand.run("adam", 0, None),
        by_hand.run("rmsprop", 0, None, outcome="stopped"),
    )
    result = replace(race(*runs), status="interrupted")
    the(result, "None of 2 optimizers leaves the plateau within 400 backpropagations.")
    assert view(result).headline[1].endswith("within 400 backpropagations: not one run of those that came to an end")
    alone = replace(race(*runs[1:]), status="interrupted")
    the(alone, "adam does not leave the plateau within 400 backpropagations.")
    nothing = replace(race(runs[2]), status="interrupted")
    assert not any("plateau within" in finding.says for finding in findings(nothing))
    assert view(nothing).headline == ("–", "no run came to its end before it was stopped")


def test_that_no_other_leaves_is_said_of_those_that_came_to_their_end():
    through, stays = by_hand.run("sgd", 0, 20), by_hand.run("adam", 0, None)
    assert the(race(through, stays), "gets through first").because == "no other did"
    stopped = replace(race(through, replace(stays, outcome="stopped")), status="interrupted")
    assert the(stopped, "gets through first").because == "no other that came to its end did"


def test_seeds_without_time_beside_an_interrupt():
    left_out = ("runs 2 to 3 of each: --time-budget 180 has time for more",)
    result = replace(race(by_hand.run("sgd", 0, None, outcome="stopped")), status="interrupted", too_slow=left_out)
    said = [finding.says for finding in findings(result)]
    assert not any("too short" in one for one in said)
    found = the(result, "left out for lack of time, before the interrupt")
    assert found.because == "left out: 1 entry, see the table"
    whole = replace(result, status="ok")
    assert the(whole, "The time that was granted was too short").because.startswith(
        "stopped while it ran: sgd; left out"
    )
