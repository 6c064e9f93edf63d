"""A report in Markdown: the headline, compact tables and the verdict, for an issue or a notebook."""

from hessdiag.report.columns import folded
from hessdiag.report.terminal import CODE, WORDS
from hessdiag.report.view import Heat, Table, View, checks_table

# Tags, the ends of cells, quotations and, on GitHub, mathematics. The first is what entities themselves begin with.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "$": "&#36;"}


def render(view: View) -> str:
    """Write a view as GitHub-flavoured Markdown."""
    value, sentence = view.headline
    lines = [f"## {_escape(view.question)}", "", f"**{_escape(value)}** {_escape(sentence)}", ""]
    lines += [f"> **{_escape(warning)}**\n" for warning in view.warnings]
    lines += [f"- {_escape(name)}: {_escape(text)}" for name, text in view.subject]
    lines += [f"- {_escape(fact.name)}: {_escape(fact.value)} ({_escape(fact.meaning)})" for fact in view.facts]
    lines += [f"- {_escape(note)}" for note in view.notes]
    for block in view.blocks:
        if isinstance(block, Table) or not (isinstance(block, Heat) or block.text in ("none", "spark")):
            lines += ["", *_table(block if isinstance(block, Table) else block.table)]
    if view.verdict:
        lines += ["", "### Verdict", ""]
    for finding in view.verdict:
        lines.append(f"- **{WORDS[finding.level][0]}**: {_escape(finding.says)}")
        lines += [
            f"  {name}: {_escape(text)}"
            for name, text in (("because", finding.because), ("try", finding.remedy))
            if text
        ]
    if view.code:
        lines += ["", f"### {CODE}", "", "```python", *view.code, "```"]
    if view.checks:
        lines += ["", *_table(checks_table(view.checks))]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    rules = ["---" if index < table.text_columns else "---:" for index in range(len(table.columns))]
    start, end = folded(len(table.rows))
    last = len(table.rows) - end
    said = f"{last - start} rows between: --json has them"
    between = [(said, *("" for _ in table.columns[1:]))] if end else []
    shown = (table.columns, *table.rows[:start], *between, *table.rows[last:])
    rows = [f"| {' | '.join(map(_escape, row))} |" for row in shown]
    return [f"### {_escape(table.title)}", "", rows[0], f"| {' | '.join(rules)} |", *rows[1:]]


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
