import pytest

from hessdiag.questions.pages import view_of
from hessdiag.report.view import Table
from tests.documents import document


def test_the_factor_that_keeps_a_typical_norm_and_the_fourth_moment_are_drawn():
    doc = document("forward")
    charts = {chart.title.split()[1]: chart for chart in view_of(doc).blocks if not isinstance(chart, Table)}
    last = doc["result"]["inits"][2]["layers"][-1]
    median, exact, rms = (one for one in charts["factor"].series if one.group == 2)
    assert median.values[-1] == pytest.approx(last["median"] ** (-1 / 8), rel=1e-12)
    assert median.low[-1] < median.values[-1] < median.high[-1]
    assert exact.values[-1] == pytest.approx(last["theory_median"] ** (-1 / 8), rel=1e-12)
    assert rms.values[-1] == pytest.approx(last["theory_rms"] ** (-1 / 8), rel=1e-12)
    fourth, theory = (one for one in charts["moment"].series if one.group == 2)
    assert theory.values[-1] == last["theory_kurtosis"]
    assert fourth.high[-1] == pytest.approx(last["kurtosis"] + 2 * last["kurtosis_stderr"], rel=1e-12)
    for init in doc["result"]["inits"]:  # a MODEL has no closed forms
        for layer in init["layers"]:
            layer |= {"theory_rms": None, "theory_kurtosis": None}
    assert not {"factor", "moment"} & {block.title.split()[1] for block in view_of(doc).blocks if hasattr(block, "alt")}
