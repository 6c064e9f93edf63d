"""A report in Markdown: the headline, compact tables and the verdict, for an issue or a notebook."""

from hessdiag.report import shell
from hessdiag.report.columns import folded
from hessdiag.report.numbers import MISSING, counted
from hessdiag.report.overview import MOST_OTHERS, SEVERE
from hessdiag.report.pieces import WORDS
from hessdiag.report.terminal import CODE
from hessdiag.report.view import Block, Finding, Heat, Section, Table, View, checks_table
from hessdiag.report.woven import by_turns, first

# Tags, the ends of cells, quotations and, on GitHub, mathematics. The first is what entities themselves begin with.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "$": "&#36;"}


def render(view: View) -> str:
    """Write a view as GitHub-flavoured Markdown."""
    lines = _whole(view) if view.sections else _one(view)
    return "\n".join(lines) + "\n"


def _one(view: View) -> list[str]:
    value, sentence = view.headline
    lines = [f"## {_escape(view.question)}", "", f"**{_escape(value)}** {_escape(sentence)}", ""]
    lines += [*_head(view), *_facts(view)]
    lines += [f"- {_escape(note)}" for note in view.notes]
    for block in view.blocks:
        if _is_table(block):
            lines += ["", *_titled(block if isinstance(block, Table) else block.table)]
    if view.verdict:
        lines += ["", "### Verdict", ""]
    lines += [line for finding in view.verdict for line in _finding(finding)]
    if view.code:
        lines += ["", f"### {CODE}", "", "```python", *view.code, "```"]
    if view.checks:
        lines += ["", *_titled(checks_table(view.checks))]
    return lines


def _whole(view: View) -> list[str]:
    """A report of several answers: the verdict, then of each answer its sentence, its numbers and its first table."""
    finding, others = first(view)
    lines = [f"## {_escape(view.question)}", "", f"**{_escape(view.headline[0])}**", ""]
    lines += [part for line in (_reasons(finding) if finding is not None else []) for part in (line.strip(), "")]
    lines += [*_head(view), *(f"- {_escape(note)}" for note in view.notes)]
    if others:
        lines += ["", f"### Findings: {_escape(view.headline[1])}", ""]
    lines += _overall(others)
    if view.facts:
        numbers = tuple((fact.section, fact.name, fact.value) for fact in view.facts)
        lines += ["", *_titled(Table("Key numbers", ("from", "what", "value"), numbers, text_columns=2))]
    answers = tuple((one.key, one.view.question, " ".join(one.view.headline), one.took) for one in view.sections)
    lines += ["", *_titled(Table("Answers", ("command", "question", "answer", "took"), answers, text_columns=3))]
    for section in view.sections:
        lines += ["", *_section(section)]
    if view.left_out:
        rows = tuple((one.name, one.why, one.cost or MISSING, shell.line(one.argv)) for one in view.left_out)
        lines += ["", *_titled(Table("Left out", ("question", "why", "would take", "command"), rows, text_columns=4))]
    return [*lines, "", *_command(view)]


def _overall(findings: tuple[Finding, ...]) -> list[str]:
    """The severe findings, those of no single section, and the first others: all of these are in their sections."""
    severe = [one for one in findings if one.level in SEVERE]
    wide = [one for one in findings if one.level not in SEVERE and len(one.sections) != 1]
    narrow = by_turns([one for one in findings if one.level not in SEVERE and len(one.sections) == 1])
    shown = narrow[: max(MOST_OTHERS - len(wide), 0)]
    lines = [line for one in (*severe, *wide) for line in _finding(one)]
    lines += [_finding(one)[0] for one in shown]
    more = len(narrow) - len(shown)
    return [*lines, *([f"- and {counted(more, 'finding')} more, under their questions"] if more else [])]


def _section(section: Section) -> list[str]:
    view = section.view
    value, sentence = view.headline
    lines = [f"### {section.key}: {_escape(view.question)}", "", f"**{_escape(value)}** {_escape(sentence)}", ""]
    lines += [*_head(view), *_facts(view)]
    blocks = (block if isinstance(block, Table) else block.table for block in view.blocks if _is_table(block))
    shown = next(blocks, None)
    lines += ["", f"**{_escape(shown.title)}**", "", *_table(shown)] if shown is not None else []
    lines += ["", *(line for finding in view.verdict for line in _finding(finding))]
    lines += ["", f"**{CODE}**", "", "```python", *view.code, "```"] if view.code else []
    return [*lines, "", *_command(view)]


def _is_table(block: Block) -> bool:
    """Whether a block says something as a table, which maps and curves do not."""
    return isinstance(block, Table) or not (isinstance(block, Heat) or block.text in ("none", "spark"))


def _head(view: View) -> list[str]:
    warnings = [f"> **{_escape(warning)}**\n" for warning in view.warnings]
    return [*warnings, *(f"- {_escape(name)}: {_escape(text)}" for name, text in view.subject)]


def _facts(view: View) -> list[str]:
    return [f"- {_escape(fact.name)}: {_escape(fact.value)} ({_escape(fact.meaning)})" for fact in view.facts]


def _finding(finding: Finding) -> list[str]:
    """A finding with its reasons; the section that it is from, where a report has several."""
    origin = f" ({finding.sections[0]})" if len(finding.sections) == 1 else ""
    return [f"- **{WORDS[finding.level][0]}**: {_escape(finding.says)}{origin}", *_reasons(finding)]


def _reasons(finding: Finding) -> list[str]:
    said = (("because", finding.because), ("try", finding.remedy))
    return [f"  {name}: {_escape(text)}" for name, text in said if text]


def _command(view: View) -> list[str]:
    """The command line, between fences that it cannot close: it begins with a word or a quotation mark."""
    return ["```sh", shell.line(view.argv), "```"] if view.argv else []


def _titled(table: Table) -> list[str]:
    return [f"### {_escape(table.title)}", "", *_table(table)]


def _table(table: Table) -> list[str]:
    rules = ["---" if index < table.text_columns else "---:" for index in range(len(table.columns))]
    start, end = folded(len(table.rows))
    last = len(table.rows) - end
    said = f"{last - start} rows between: --json has them"
    between = [(said, *("" for _ in table.columns[1:]))] if end else []
    shown = (table.columns, *table.rows[:start], *between, *table.rows[last:])
    rows = [f"| {' | '.join(map(_escape, row))} |" for row in shown]
    return [rows[0], f"| {' | '.join(rules)} |", *rows[1:]]


def _escape(text: str) -> str:
    """Text that Markdown takes as it stands.

    >>> _escape("a|b <img> $x$")
    'a&#124;b &lt;img&gt; &#36;x&#36;'
    """
    escaped = text
    for sign, entity in _ENTITIES.items():
        escaped = escaped.replace(sign, entity)
    for sign in "\\`*_~[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped.replace("\n", " ")
