"""How a report is laid out."""

from hessdiag.questions.common.view import subject
from hessdiag.questions.report.result import Report
from hessdiag.report.numbers import MISSING, number
from hessdiag.report.view import Fact, Table, View


def view(result: Report) -> View:
    """Lay out a report."""
    told = tuple(
        (section.command, section.document["status"], number(section.seconds), number(section.announced_seconds))
        for section in result.sections
    )
    left = tuple((one.command, one.why, number(one.seconds), " ".join(one.argv) or MISSING) for one in result.left_out)
    answer = result.findings[0].says if result.findings else ""
    return View(
        question="What is there to know about this model?",
        subject=subject(result.problem),
        headline=(f"{len(result.sections)} questions", answer),
        facts=tuple(Fact(one.command, number(one.value), f"{one.metric}: {one.meaning}") for one in result.key_numbers),
        blocks=(
            Table("Questions", ("question", "status", "seconds", "announced"), told, text_columns=2),
            Table("Left out", ("question", "why", "seconds", "command"), left, text_columns=2),
        ),
    )
