import time

from hessdiag.cli import progress


def test_in_a_log_the_cost_is_said_once_and_then_time_passes(capsys, monkeypatch):
    clock = iter([0.0] + [float(t) for t in range(0, 400, 10)])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress.reporter() as report:
        report(0, 100, "100 rows, 1 at a time")
        report(0, 100, "100 rows, 1 at a time")
        report(0, 100, "")  # a piece of it that has found nothing yet
        for done in range(1, 101):
            if done % 20 == 0:
                report(done, 100, "rows")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "100 rows, 1 at a time"
    assert lines.count(lines[0]) == 1
    assert 1 <= len(lines) - 1 < 5, "not a line per call"
    assert all(line.startswith("  ") and line.endswith(" left") for line in lines[1:])


def test_a_search_says_what_a_product_takes_and_no_time_to_its_limit(capsys, monkeypatch):
    clock = iter([0.0] + [float(t) for t in range(0, 4000, 10)])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress.reporter() as report:
        report(0, 5000, "2 pairs")
        for done in range(8, 48, 8):
            report(done, 5000, "at most products (0 of 2 pairs found)")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "2 pairs"
    assert len(lines) > 1
    assert all(
        "of at most 5,000 products (0 of 2 pairs found), " in line and line.endswith(" each") for line in lines[1:]
    )


def test_a_bar_is_drawn_on_a_terminal_and_leaves_only_the_cost(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.reporter() as report:
        report(0, 10, "10 rows")
        report(5, 10, "rows")
        report(0, 4, "4 more")
        report(4, 4, "more")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "10 rows" in captured.err
    assert "4 more" in captured.err


def test_silence(capsys):
    with progress.reporter(enabled=False) as report:
        report(0, 10, "10 rows")
    assert capsys.readouterr().err == ""


def test_work_of_years_is_said_once_its_pace_is_known(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.reporter() as report:
        report(0, 10**9, "1,000,000,000 networks")
        for done in range(1, 20):
            now[0] += 0.38
            report(done, 10**9, "networks")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["  at this pace it takes about 12 years; Ctrl-C ends it"]
