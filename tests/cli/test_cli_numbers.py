"""Every number in headline, facts and verdict is one of the tables or the document, or follows from its own sentence.

What a reader cannot find or do again is a mistake: of two definitions under one name, of rounding, or of a unit.
"""

import itertools
import json
import math
import re
from shlex import split

import pytest

from hessdiag.numbers import number
from hessdiag.questions.common.verdict import SEVERITY
from hessdiag.questions.documents import loads, numbers_of
from hessdiag.questions.pages import render, view_of
from hessdiag.report.view import Table

MLP = "'builtin:mlp(depth=3, width=6)'"
COMMANDS = [
    "vanishing --depth 32 --width 8 --seeds 40 --hessian-seeds 6",
    "vanishing --depth 16 --width same --seeds 25 --hessian-seeds 4",
    "vanishing --depth 1 --width 4 --seeds 4 --hessian-seeds 2",
    "vanishing --depth 64 --width 1 --seeds 20 --hessian-seeds 2 --batch 2",
    "vanishing --depth 16 --width 16 --init lecun --activation linear --seeds 30 --hessian-seeds 4",
    "vanishing 'builtin:mlp(depth={depth}, width=4)' --depth 8 --seeds 3",
    "chain --seeds 2000",
    "chain --length 1 --seeds 2",
    "chain --length 40 --scale 1.2 --seeds 500",
    "forward --depth 16 --width 8 --seeds 100",
    "forward --depth 64 --width 2 --seeds 30 --init he_normal",
    "forward --depth 32 --width 3 --seeds 40",
    "forward --depth 8 --width 8 --seeds 100 --solve median --init he_normal",
    f"forward {MLP} --seeds 30",
    f"diag-share {MLP}",
    "diag-share 'builtin:mlp(depth=3, width=16)' --rows 40",
    "diag-share 'builtin:mlp(depth=1, width=1)'",
    "diag-share 'builtin:mlp(depth=2, width=5)' 'builtin:mlp(depth=3, width=5)' 'builtin:mlp(depth=4, width=5)'",
    f"eigs {MLP}",
    "eigs 'builtin:mlp(depth=1, width=1)'",
    "eigs 'builtin:mlp(depth=3, width=30)' --lowest 2 --highest 2 --max-products 20",
    f"spectrum {MLP}",
    "spectrum 'builtin:mlp(depth=3, width=26)' --probes 4 --steps 20",
    f"spectrum {MLP} --operator ggn",
    f"bounds {MLP}",
    "bounds 'builtin:mlp(depth=1, width=1)'",
    f"blocks {MLP}",
    f"blocks {MLP} --probes 4",
    "blocks 'builtin:mlp(depth=1, width=3)'",
    "blocks 'builtin:mlp(depth=12, width=2)'",
    "diag-share 'builtin:mlp(depth=30, width=2)'",
    "spectrum 'builtin:mlp(depth=30, width=2)'",
    "eigs 'builtin:mlp(depth=30, width=2)'",
    "chain --length 1000 --seeds 50",
]
TOKEN = re.compile(r"(?<![\w.^/])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?![\w.,]*\d)(?: %)?")
# What is no number of the measurement: levels, limits and numbers of an instruction.
CONSTANTS = {"0", "1", "2", "1 %", "5 %", "50 %", "90 %", "95 %", "0.05", "1.2e-38", "1e-8", "1.00", "1.000", "20,000"}
UNTIDY = [
    r"\bnothing\b$",
    r"(?<![\d.,/=×^-])\b1 (?!times\b|is\b|was\b|has\b)[a-z]+s\b",
    r"\b0 of 0\b",
    r"\b(nan|None|inf|True|False)\b",
    r"NaN",
    r"\de[+-]0\d",
    r"\b1 times\b",
    r"  ",
]


MEASURED = {}


@pytest.fixture(params=COMMANDS)
def doc(request, hessdiag):
    """The document of a command, measured once for all tests."""
    if request.param not in MEASURED:
        MEASURED[request.param] = hessdiag(*split(request.param), "--json", "--no-progress", "--allow-inexact").out
    return numbers_of(loads(MEASURED[request.param]))


def leaves(value):
    """Numbers of a document, but for long series, and how many entries its lists have."""
    if isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(leaves, value.values()))
    elif isinstance(value, list):
        yield len(value)
        yield from itertools.chain.from_iterable(map(leaves, value[:50]))
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        yield value


def value_of(token):
    return float(token.removesuffix(" %").replace(",", ""))


def digits_of(token):
    mantissa = re.sub(r"e.*| %|[-,.]", "", token).lstrip("0")
    return max(len(mantissa), 1)


def shown_as(value, token):
    """Whether a number of the document is written like this, in the form that all numbers have."""
    bare = token.removesuffix(" %").lstrip("-")
    scaled = 100 * value if token.endswith(" %") else value
    forms = {number(abs(scaled))} if isinstance(scaled, int) else set()
    return bare in forms | {number(float(abs(scaled)), digits) for digits in {digits_of(token), 3, 4}}


def half_unit(token):
    """Half of the last digit that is shown; a whole number of two digits is a count."""
    if re.fullmatch(r"-?\d{1,2}", token):
        return 0.0
    bare = token.removesuffix(" %").replace(",", "").lstrip("-")
    mantissa, _, exponent = bare.partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def follows(token, others):
    """Whether ratio, reciprocal, rest, difference or root of other numbers of the sentence gives it, up to rounding."""
    scale = 100 if token.endswith(" %") else 1
    target, slack = abs(value_of(token)) / scale, half_unit(token) / scale
    known = [
        (abs(value_of(one)) / unit, half_unit(one) / unit) for one in others for unit in (100 if " %" in one else 1,)
    ]
    bounds = [(max(value - error, 0.0), value + error) for value, error in known]

    def near(low, high):
        return low - slack <= target <= high + slack

    for low, high in bounds:
        if near(1 - high, 1 - low) or (low > 0 and (near(1 / high, 1 / low) or near(2 / high, 2 / low))):
            return True
    for (a, b), (c, d) in itertools.permutations(bounds, 2):
        if c > 0 and near(a / d, b / c):
            return True
        if near(a - d, b - c) or (c >= 1 and a > 0 and near(a ** (1 / c), b ** (1 / c))):
            return True
    return False


def elsewhere(doc):
    """What follows from numbers of other places on the same page, recomputed from the document."""
    result, command = doc["result"], doc["command"]
    if command == "vanishing" and result["depths"]:
        last = result["depths"][-1]
        off, on = (last[f"hessian_{kind}_blocks_norm"]["median"] for kind in ("offdiagonal", "diagonal"))
        parameters = {entry.get("parameters") for entry in result["depths"]}
        yield from (off / on if on else 0.0, last["gradient_norm"]["median"] / math.sqrt(last.get("parameters") or 1))
        yield from (a / b for a, b in itertools.permutations(parameters, 2))
        yield from (math.sqrt(a / b) for a, b in itertools.permutations(parameters, 2))
        for rate in result["rates"].values():
            for key in ("per_layer", "theory_per_layer"):
                if rate[key] is not None:
                    factor = math.exp(rate[key])
                    yield from (factor, factor * rate["per_layer_stderr"])
        if doc["theory"]:
            yield 1 / doc["theory"]["typical_growth"]
    if command == "forward":
        for init in result["inits"]:
            end = init["layers"][-1]
            rms, median = (end[f"theory_{key}"] or end[key] for key in ("rms", "median"))
            if median and rms:
                yield rms / median
            log = end["log_median"]
            if math.isfinite(log):
                yield from (math.exp(abs(log)), math.exp(log / init["depth"]))
        for theory in ((doc["theory"] or {}).get("inits") or {}).values():
            yield -math.log(theory["typical_growth"])
    if command == "chain" and result["hessian_offdiagonal"]:
        yield math.exp(
            result["hessian_offdiagonal"]["theory_log_median"] - result["hessian_diagonal"]["theory_log_median"]
        )
        if result["plateau"]:
            yield 1 / result["plateau"]["learning_rate"]
    if command == "eigs" and result["largest"] and result["smallest"] is not None:
        yield abs(result["smallest"] / result["largest"])
        yield sum((pair["gradient_overlap"] or 0.0) ** 2 for pair in result["highest"])
    if command == "spectrum" and result["frobenius"]:
        low, high = doc["theory"]["semicircle_low"], doc["theory"]["semicircle_high"]
        radius, middle = (high - low) / 2, (high + low) / 2
        yield from (max(result["highest"] - middle, middle - result["lowest"]) / radius, radius, middle)
        yield result["frobenius"] / max(abs(result["lowest"]), abs(result["highest"]))
        known = [outlier["eigenvalue"] for outlier in result["outliers"] if outlier["converged"]]
        yield from (sum(value**2 for value in known) / result["frobenius"] ** 2, float(len(known)))
    if command == "blocks" and result["norm"]:
        squares = [[value**2 for value in row] for row in result["frobenius"]]
        whole, places = result["norm"] ** 2, range(len(squares))
        for place in places:
            yield (2 * sum(squares[place]) - squares[place][place]) / whole
            yield result["sizes"][place] / result["parameters"]
        yield from ((2 - (i == j)) * squares[i][j] / whole for i in places for j in places)
    change = result.get("change")
    if change:
        yield change["after"] / change["before"]
        yield math.exp(change["trend"]["slope"])


def claims(doc, view):
    yield " ".join(view.headline)
    yield from (f"{fact.value} {fact.meaning}" for fact in view.facts)
    yield from (f"{finding.says} {finding.because}" for finding in view.verdict)


def unexplained(doc):
    view = view_of(doc)
    tables = [*(block if isinstance(block, Table) else block.table for block in view.blocks), *view.extra]
    texts = [cell for table in tables for row in (table.columns, *table.rows) for cell in row]
    texts += [text for _, text in view.subject] + [check.value for check in view.checks]
    printed = set(itertools.chain.from_iterable(map(TOKEN.findall, map(str, texts))))
    known = [*leaves({part: doc[part] for part in ("result", "theory", "checks", "problem")}), *elsewhere(doc)]
    for claim in claims(doc, view):
        tokens = TOKEN.findall(claim)
        sizes = TOKEN.findall(re.sub(r"± \S+", "", claim))
        for token in tokens:
            if token in printed | CONSTANTS or any(shown_as(value, token) for value in known):
                continue
            if not follows(token, [one for one in sizes if one != token]):
                yield token, claim


def test_each_number_can_be_found_or_done_again(doc):
    assert list(unexplained(doc)) == []


def test_the_most_severe_finding_is_first(doc):
    levels = [SEVERITY.index(finding["level"]) for finding in doc["verdict"]]
    assert levels == sorted(levels)
    assert doc["verdict"]


def test_no_phrase_is_untidy(doc):
    view = view_of(doc)
    said = [*view.headline, *(text for pair in view.subject for text in pair)]
    said += [text for fact in view.facts for text in (fact.value, fact.meaning)]
    said += [text for finding in view.verdict for text in (finding.says, finding.because, finding.remedy)]
    found = [(pattern, text) for text in said for pattern in UNTIDY if re.search(pattern, text)]
    assert found == []
    assert not re.search(r"try +nothing", render(doc, "text"))


def test_one_thread_is_in_the_singular(hessdiag):
    doc = loads(hessdiag(*split("chain --length 1 --seeds 2 --json --no-progress")).out)
    doc["provenance"]["threads"] = 1
    assert "1 thread</dd>" in re.sub(r"\s+", " ", render(doc, "html"))


def test_a_number_of_another_quantity_is_found_out(hessdiag):
    """What this file is for: 259 times where the table gives 81."""
    doc = loads(hessdiag(*split(f"{COMMANDS[0]} --json --no-progress")).out)
    finding = next(one for one in doc["verdict"] if one["says"].startswith("Gradients"))
    finding["says"] = re.sub(r"is \S+ times", "is 259 times", finding["says"])
    assert "259" in json.dumps(list(unexplained(doc)))
