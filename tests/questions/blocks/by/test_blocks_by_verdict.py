"""What the verdict on a partition says, and what a report shows of it."""

from dataclasses import replace

import pytest

from hessdiag.questions import documents
from hessdiag.questions.blocks.by.result import Extreme
from hessdiag.questions.blocks.by.verdict import findings
from hessdiag.questions.blocks.by.view import view
from hessdiag.questions.pages import view_of
from hessdiag.report.view import Dots, Heat
from tests.documents import document


@pytest.fixture
def found():
    return documents.read(document("blocks-by"))


def said(result):
    return " | ".join(f"{one.says} {one.because} {one.remedy}" for one in findings(result))


@pytest.mark.parametrize(
    ("squares", "mass", "words"),
    [
        (0.9, 0.5, "depends on the norm: 90 % of the squared norm is inside the 3 blocks, and 50 %"),
        (0.995, 0.97, "nearly block-diagonal"),
        (0.7, 0.65, "Most of the Hessian is inside"),
        (0.2, 0.3, "Most of the Hessian couples"),
    ],
)
def test_the_answer_names_its_norm(found, squares, mass, words):
    changed = replace(found, frobenius_share=squares, absolute_share=mass, relative_error=(1 - squares) ** 0.5)
    text = said(changed).replace("90.0", "90").replace("50.0", "50")
    assert words in text
    assert "K-FAC, Shampoo" in text
    assert "K-FAC" not in said(replace(changed, partition="neuron")).split("|")[0]


def test_learning_rates_come_from_the_whole_matrix(found):
    top = Extreme(hessian=4.0, blocks=1.0, block="a")
    text = said(replace(found, lambda_max=top))
    assert "show only 25 % of the largest" in text.replace("25.0", "25")
    assert "2/lambda_max = 0.5" in text
    assert "would allow 2" in text
    assert "others may show more" in said(replace(found, lambda_max=replace(top, blocks_is_bound=True)))
    assert "about the right largest learning rate" in said(replace(found, lambda_max=replace(top, blocks=3.9)))


def test_negative_curvature_is_where_it_is(found):
    low = Extreme(hessian=-2.0, blocks=-1.5, block="a")
    assert "Blocks by themselves curve down: they show 75" in said(replace(found, lambda_min=low))
    assert "Most negative curvature is between blocks" in said(replace(found, lambda_min=replace(low, blocks=-0.2)))
    none = said(replace(found, lambda_min=replace(low, blocks=0.0, blocks_is_bound=True)))
    assert "no block curves down, among those that were looked at" in none
    rounding = said(replace(found, lambda_min=replace(low, hessian=-1e-18)))
    assert "curve down" not in rounding
    assert "negative" not in rounding.lower().replace("negative curvature and", "")


def test_directions_and_spectra_are_told_apart(found):
    assert "not that of any block" in said(replace(found, top_cosine=0.2))
    assert "is that of the blocks" in said(replace(found, top_cosine=0.99))
    alike = tuple(replace(block, lambda_max=1.0) for block in found.blocks)
    assert "about alike" in said(replace(found, blocks=alike))
    steep = (replace(found.blocks[0], lambda_max=0.001), *alike[1:])
    text = said(replace(found, blocks=steep))
    assert "is 1,000 times the flattest's" in text
    assert "disputed" in text


def test_where_a_check_failed_nothing_is_concluded(found):
    failed = replace(found, trusted=False, checks=found.checks | {"hvp_symmetry": 1.0})
    assert "block-diagonal" not in said(failed)
    assert "not symmetric" in said(failed)


def test_rounding_is_no_eigenvalue(found):
    table = view(replace(found, rounding=1e-6)).blocks[-1]
    column = table.columns.index("λ min")
    assert {row[column] for row in table.rows} == {"0"}
    assert view(replace(found, lambda_min=replace(found.lambda_min, hessian_is_bound=True))).facts


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("blocks-by", [Heat, Heat]), ("blocks-by-neuron", [Heat, Heat]), ("blocks-by-sampled", [Heat, Heat])],
)
def test_the_page_has_norms_spectra_and_a_table(name, kinds):
    shown = view_of(document(name))
    *charts, table = shown.blocks
    assert [type(chart) for chart in charts] == kinds
    spectra = charts[-1]
    assert "0" in spectra.columns
    assert {len(row) for row in spectra.matrix} == {len(spectra.columns)}
    assert len(table.rows) == len(document(name)["result"]["blocks"])


def test_many_blocks_have_bars_instead_of_a_matrix():
    doc = document("blocks-by-neuron", coupling=None, coupled=[])
    assert isinstance(view_of(doc).blocks[0], Dots)
