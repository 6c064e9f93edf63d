import torch

from hessdiag.cli import progress
from hessdiag.machine import cost

CPU = torch.device("cpu")


def told(capsys, seconds, products=(100, 100), held=3 * 2**30, search=False):
    with progress.reporter():
        cost.plan(products, {"basis": held}, CPU, search=search)
        for _ in range(4):
            cost.enter(1, seconds)
    return capsys.readouterr().err


def test_the_cost_is_said_once_from_measured_products(capsys):
    err = told(capsys, 6.0)
    assert err.startswith("cost: 100 products, 6 s each as measured: 10 min for them; peak memory 3.")
    assert err.count("cost:") == 1
    assert " of " in err.partition("memory")[2]


def test_a_range_of_products_gives_a_range_of_times(capsys):
    assert "100 to at most 2,000 products, 6 s each as measured: 10 min to 3 h 20 min" in told(capsys, 6.0, (100, 2000))


def test_a_search_says_what_a_hundred_products_take_since_nobody_knows_how_many_it_needs(capsys):
    err = told(capsys, 6.0, (0, 5000), search=True)
    assert err.startswith(
        "cost: 6 s a product as measured, 10 min for each hundred until the pairs converge; at most 5,"
    )
    assert "5,000 products, 8 h 20 min with checks" in err
    assert "hundred" not in told(capsys, 6.0, (0, 40), search=True)


def test_short_work_is_silent(capsys):
    assert told(capsys, 0.001) == ""


def test_checks_of_minutes_show_signs_of_life(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.reporter():
        for _ in range(10):
            now[0] += 20.0
            cost.enter_gradient()
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 6
    assert all("gradients so far" in line for line in lines)


def test_time_left_is_counted_from_where_counting_began(capsys, monkeypatch):
    """Checks that took an hour say nothing of what is left."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.reporter() as report:
        report(0, 100, "100 rows")
        now[0] = 3600.0
        report(1, 100, "rows")
        for done in range(2, 60):
            now[0] += 2.0
            report(done, 100, "rows")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(" left")
    assert " h " not in last


def test_the_ledger_is_kept_for_the_record():
    with progress.reporter(enabled=False) as report:
        cost.plan((10, 20), {"basis": 100.0}, CPU)
        cost.enter(2, 0.5)
    kept = report.ledger.as_dict()
    assert kept["products_planned"] == [10, 20]
    assert kept["seconds_per_product"] == 0.25
    assert kept["memory_by_holder"]["basis"] == 100
    assert kept["memory_planned_bytes"] == sum(kept["memory_by_holder"].values())
