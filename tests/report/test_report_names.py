import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessdiag.questions.pages import render
from hessdiag.report.names import Name, fitted, shortened
from tests.documents import document

BERT = [
    "bert.embeddings.word_embeddings",
    "bert.embeddings.LayerNorm",
    *(f"bert.encoder.layer.{block}.{part}" for block in range(12) for part in ("attention.self.query", "output.dense")),
    "bert.pooler.dense",
    "classifier",
]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["encoder.layer.11.attention.output.dense"], ["11.attention.output.dense"]),
        (["transformer.wte", "transformer.h.3.attn.c_proj", "lm_head"], ["wte", "3.attn.c_proj", "lm_head"]),
        (["features.0", "features.3", "classifier.0"], ["features.0", "features.3", "classifier.0"]),
        (["conv1", "layer1.0.conv1", "layer2.0.conv1"], ["conv1", "layer1.0.conv1", "layer2.0.conv1"]),
        (["vision.encoder.layers.0.q", "text.encoder.layers.0.q"], ["vision.0.q", "text.0.q"]),
        (["0", "2", "4"], ["0", "2", "4"]),
        (["a.0.x", "0.x"], ["a.0.x", "0.x"]),  # alike without what tells them apart
        (["model.fc", "fc", "model.head"], ["model.fc", "fc", "head"]),
        (["m.a", "m.a", "m.b"], ["a", "a", "b"]),
        ([], []),
    ],
)
def test_names_lose_what_they_share(names, short):
    assert list(shortened(names)) == short
    assert [name.full for name in shortened(names)] == names


def test_a_transformer_keeps_the_index_of_its_blocks():
    short = shortened(BERT)
    assert short[2:4] == ("0.attention.self.query", "0.output.dense")
    assert short[-3:] == ("11.output.dense", "pooler.dense", "classifier")
    assert len(set(short)) == len(BERT)


PART = st.sampled_from(["0", "1", "12", "a", "b", "layer", "", "é"])
NAMES = st.lists(st.lists(PART, min_size=1, max_size=5).map(".".join), max_size=12)


@given(NAMES)
def test_two_layers_are_never_shown_alike(names):
    short = shortened(names)
    assert len(set(short)) == len(set(names))
    assert all(full.endswith(shown.rpartition(".")[2]) for shown, full in zip(short, names, strict=True))


@given(st.lists(st.text("ab", max_size=12), max_size=8, unique=True), st.integers(3, 9))
def test_cut_labels_stay_apart(names, longest):
    assert len(set(fitted(names, longest))) == len(names)


def test_every_view_shows_short_names_and_the_page_has_them_in_full():
    name = "blocks.{}.linear"
    for doc in map(document, ("diag-share", "eigs-exact", "blocks")):
        page = render(doc | {"verdict": []}, "html")  # sentences have names in full
        before_the_data = page[: page.index("<script")]
        visible = re.sub(r"<[^>]*>", "", before_the_data)
        assert "0.linear" in visible
        assert name.format(1) not in visible
        assert before_the_data.count(f'title="{name.format(1)}"') >= 1
        assert name.format(0) in render(doc, "json")


def test_a_pair_is_short_and_full():
    pair = Name("0.x", "m.0.x").and_other(Name("1.x", "m.1.x"))
    assert (pair, pair.full) == ("0.x – 1.x", "m.0.x – m.1.x")
