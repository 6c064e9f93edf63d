"""Data sets of Hugging Face's on the disk, with a tokenizer beside them: tokens, labels, order; and what is refused."""

import json
import os
import shutil
import socket

import pytest
import torch

from hessdiag.errors import HessdiagError, LoadError, SpecError
from hessdiag.problem.load import ALL, ProblemRequest, load_problem

datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[UNK]", "[PAD]", "the", "cat", "dog", "sat", "on", "mat", "ran", "far", "away", "and", "slept"]
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def texts(count=20):
    return [" ".join(WORDS[2 + (i * k) % 11] for k in range(1, 3 + i % 9)) for i in range(count)]


def tokenizer():
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    here = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    gpt = transformers.GPT2Config(vocab_size=len(WORDS), n_embd=8, n_layer=1, n_head=2, n_positions=16)
    bert = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, num_labels=2, **TINY)
    transformers.GPT2LMHeadModel(gpt).save_pretrained(here / "gpt")
    transformers.BertForSequenceClassification(bert).save_pretrained(here / "bert")
    tokenizer().save_pretrained(here / "tokenizer")
    rows = [{"text": text, "label": k % 2, "id": str(k)} for k, text in enumerate(texts())]
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"]),
                "id": datasets.Value("string")}  # fmt: skip
    whole = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    whole.save_to_disk(here / "one")
    datasets.DatasetDict({"train": whole, "test": whole.select(range(5))}).save_to_disk(here / "both")
    return here


@pytest.fixture
def here(made, folder):
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder


def load(data, model="hf:gpt", **options):
    return load_problem(ProblemRequest(model, data=data, device="cpu", **options))


class TestCausal:
    def test_the_tokens_are_the_labels_and_padding_is_ignored(self, here):
        problem = load("one/(shuffle=False)", batch_size=4)
        batch = problem.data[0]
        expected = tokenizer()(texts()[:4], padding=True, return_tensors="pt")
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["attention_mask"], expected["attention_mask"])
        assert torch.equal(batch["labels"], expected["input_ids"].masked_fill(expected["attention_mask"] == 0, -100))
        model = transformers.GPT2LMHeadModel.from_pretrained(here / "gpt").eval()
        rows = [model(**tokenizer()(text, return_tensors="pt")).logits[0] for text in texts()[:4]]
        losses = [
            torch.nn.functional.cross_entropy(row[:-1], ids[: len(row)][1:], reduction="none")
            for row, ids in zip(rows, expected["input_ids"], strict=True)
        ]
        assert problem.value() == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)

    def test_rows_are_drawn_and_more_begin_with_the_same(self, here):
        few, all_ = load("one/", batch_size=5), load("one/", batch_size=5, batches=ALL)
        assert torch.equal(few.data[0]["input_ids"], all_.data[0]["input_ids"])
        assert len(all_.data) == 4
        assert not torch.equal(few.data[0]["input_ids"], load("one/", batch_size=5, seed=1).data[0]["input_ids"])
        assert "data: the tokenizer is that of tokenizer" in few.notes

    def test_splits_length_and_short_rows(self, here):
        problem = load("both/#test(length=4)", batches=ALL)
        assert problem.data[0]["input_ids"].shape == (5, 4)
        datasets.Dataset.from_dict({"content": ["", "cat", "the cat sat"]}).save_to_disk(here / "short")
        problem = load("short/")
        assert problem.data[0]["input_ids"].tolist() == [[2, 3, 5]]
        assert "data: 2 rows of too few tokens are left out" in problem.notes

    def test_rows_of_tokens(self, here):
        rows = {"input_ids": [[2, 3, 4], [5, 6]], "other": [1, 2]}
        datasets.Dataset.from_dict(rows).save_to_disk(here / "tokens")
        shutil.rmtree(here / "tokenizer")
        batch = load("tokens/(shuffle=False)").data[0]
        assert batch["input_ids"].tolist() == [[2, 3, 4], [5, 6, 0]]
        assert batch["labels"].tolist() == [[2, 3, 4], [5, 6, -100]]


class TestClasses:
    def test_labels_of_their_column(self, here):
        problem = load("one/(shuffle=False)", "hf:bert", batch_size=6)
        assert problem.data[0]["labels"].tolist() == [0, 1, 0, 1, 0, 1]
        assert any("texts of column text, labels of column label" in note for note in problem.notes)
        model = transformers.BertForSequenceClassification.from_pretrained(here / "bert").eval()
        expected = tokenizer()(texts()[:6], padding=True, return_tensors="pt")
        logits = model(input_ids=expected["input_ids"], attention_mask=expected["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1] * 3))
        assert problem.value() == pytest.approx(float(loss), rel=1e-5)

    def test_named_columns_pairs_and_labels_of_text(self, here):
        rows = {"a": ["cat sat", "dog ran"], "b": ["far", "away on"], "kind": ["yes", "no"]}
        datasets.Dataset.from_dict(rows).save_to_disk(here / "pairs")
        with pytest.raises(SpecError, match="cannot be told; it has a, b, kind"):
            load("pairs/", "hf:bert")
        problem = load("pairs/(text=('a', 'b'), label='kind', shuffle=False)", "hf:bert")
        assert problem.data[0]["labels"].tolist() == [1, 0]
        assert problem.data[0]["input_ids"][0].tolist() == [*tokenizer()("cat sat", "far")["input_ids"], 1]
        assert "data: 2 classes in the order of their names: 0 no, 1 yes" in problem.notes


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "what"),
        [
            ("both/", "holds several splits; there is train, test"),
            ("both/#dev", "has no split 'dev'"),
            ("both/#..", "has no split '..'"),
            ("one/#train", "is one data set, without splits"),
            ("one/(text='nope')", "has no column 'nope'"),
            ("one/(length=1)", "no number of tokens from 2 to 16"),
            ("one/(length=99)", "no number of tokens from 2 to 16"),
            ("one/(tokenizer='elsewhere')", "there is no tokenizer"),
            ("one/(tokenizer=3)", "is no folder"),
            ("one/(size=3)", "no option 'size'"),
        ],
    )
    def test_specs(self, data, what, here):
        with pytest.raises(HessdiagError) as caught:
            load(data)
        assert what in caught.value.what
        assert caught.value.hint
        assert "\n" not in caught.value.what

    def test_no_tokenizer(self, here):
        shutil.rmtree(here / "tokenizer")
        with pytest.raises(
            LoadError, match=r"holds texts, and there is no tokenizer \(tokenizer\.json\) in gpt, gpt/tokenizer"
        ):
            load("one/")
        tokenizer().save_pretrained(here / "gpt")
        assert "data: the tokenizer is that of gpt" in load("one/").notes

    def test_nothing_is_downloaded_and_no_code_runs(self, here, monkeypatch):
        def refused(*_, **__):
            raise AssertionError("a host was asked")

        monkeypatch.setattr(socket, "getaddrinfo", refused)
        (here / "tokenizer" / "own.py").write_text("import os\nos.mkdir('ran')\nclass T: pass\n")
        settings = json.loads((here / "tokenizer" / "tokenizer_config.json").read_text())
        settings |= {"auto_map": {"AutoTokenizer": ["own.T", "own.T"]}, "tokenizer_class": "T"}
        (here / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
        (here / "one" / "one.py").write_text("import os\nos.mkdir('ran')\n")
        try:
            load("one/")
        except LoadError as error:
            assert "tokenizer" in error.what  # noqa: PT017
        assert not os.path.exists("ran")

    @pytest.mark.parametrize("name", ["../out.arrow", "/etc/hosts", "gone.arrow", 3])
    def test_files_elsewhere(self, name, here):
        shutil.copy(next((here / "one").glob("*.arrow")), here / "out.arrow")
        state = json.loads((here / "one" / "state.json").read_text())
        state["_data_files"] = [{"filename": name}]
        (here / "one" / "state.json").write_text(json.dumps(state))
        with pytest.raises(LoadError, match="names no file in it"):
            load("one/")

    @pytest.mark.parametrize("damage", ["cut", "empty", "json", "info"])
    def test_damaged(self, damage, here):
        arrow = next((here / "one").glob("*.arrow"))
        if damage in ("cut", "empty"):
            arrow.write_bytes(arrow.read_bytes()[: 40 if damage == "cut" else 0])
        else:
            (here / "one" / ("state.json" if damage == "json" else "dataset_info.json")).write_text("{")
        with pytest.raises(LoadError) as caught:
            load("one/")
        assert "\n" not in caught.value.what

    def test_rows_without_text_or_label(self, here):
        datasets.Dataset.from_dict({"text": ["cat sat", None], "label": [0, 1]}).save_to_disk(here / "holes")
        with pytest.raises(LoadError, match="row 1, column text: there is no text"):
            load("holes/", "hf:bert")
        datasets.Dataset.from_dict({"text": ["cat sat", "dog"], "label": [0, None]}).save_to_disk(here / "nolabel")
        with pytest.raises(LoadError, match="row 1: there is no label"):
            load("nolabel/", "hf:bert")

    def test_without_datasets(self, here, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(LoadError, match="datasets does not work here") as caught:
            load("one/")
        assert caught.value.hint == "pip install datasets"


def test_a_column_of_labels_that_is_not_called_so_is_asked_for(here):
    rows = datasets.Dataset.from_dict({"text": texts(), "id": list(range(20)), "mood": [n % 2 for n in range(20)]})
    rows.save_to_disk(str(here / "moods"))
    with pytest.raises(
        HessdiagError, match="which column of moods/ holds the labels cannot be told; there is id, mood"
    ) as caught:
        load("moods/", model="hf:bert")
    assert caught.value.hint == "(label='mood') at the end of --data"
    assert load("moods/(label='mood')", model="hf:bert").n_samples == 20


def test_a_data_set_from_a_script_is_cut_into_batches(here):
    (here / "own.py").write_text(
        "import datasets\n"
        "tokens = datasets.Dataset.from_dict({'input_ids': [[k % 9, 3, 2] for k in range(40)], 'text': ['a'] * 40})\n"
        "changed = tokens.with_transform(lambda rows: {'input_ids': __import__('torch').tensor(rows['input_ids']) * 0})\n"
    )
    problem = load("own.py:tokens", batches=ALL)
    assert [len(batch["input_ids"]) for batch in problem.data] == [32, 8]
    rows = torch.tensor([[k % 9, 3, 2] for k in range(40)])
    assert torch.equal(torch.cat([batch["input_ids"] for batch in problem.data]), rows)
    with torch.no_grad():
        expected = problem.model(input_ids=rows, labels=rows).loss
    assert problem.value() == pytest.approx(float(expected), rel=1e-6)
    assert not load("own.py:changed").data[0]["input_ids"].any()  # their transform stays


def test_without_labels_it_is_said_who_makes_them(here):
    datasets.Dataset.from_dict({"text": texts()}).save_to_disk(str(here / "bare"))
    with pytest.raises(
        LoadError, match="bare/ holds no labels, and the loss of BertForSequenceClassification"
    ) as caught:
        load("bare/", model="hf:bert")
    assert "with the collator of your Trainer" in caught.value.hint


def test_pictures_in_a_data_set_are_refused_with_what_is_read(here):
    from PIL import Image

    rows = {"image": [Image.new("RGB", (4, 4))] * 3, "label": [0, 1, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(here / "pictures"))
    with pytest.raises(LoadError, match="image of pictures/ holds pictures") as caught:
        load("pictures/", model="hf:bert")
    assert "a DataLoader whose batches hold pixel_values" in caught.value.hint
