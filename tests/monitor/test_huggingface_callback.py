"""A transformers.Trainer with the callback trains to the same bits as one without it."""

import json

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from hessdiag.errors import SpecError
from hessdiag.monitor.huggingface import MonitorCallback

LENGTH = 8


class Tokens(Dataset):
    def __init__(self):
        self.rows = torch.randint(17, (24, LENGTH), generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


class Stream(IterableDataset):
    def __iter__(self):
        return iter([Tokens()[0]] * 24)


def model():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=17, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2))


def trained(folder, callbacks=(), dataset=None, **options):
    given = {"per_device_train_batch_size": 4, "max_steps": 6, "report_to": "none", "save_strategy": "no", "seed": 3}
    args = TrainingArguments(folder, use_cpu=True, disable_tqdm=True, logging_steps=1, **given | options)
    trainer = Trainer(model(), args, train_dataset=dataset or Tokens(), callbacks=list(callbacks))
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return (
        trainer,
        {name: value.clone() for name, value in trainer.model.state_dict().items()},
        losses,
        torch.get_rng_state(),
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_the_same_to_the_bit(tmp_path, accumulate):
    callback = MonitorCallback(every=1, budget=None, log=tmp_path / "run.jsonl")
    _, plain, losses, state = trained(tmp_path, gradient_accumulation_steps=accumulate)
    _, watched, same_losses, same_state = trained(tmp_path, [callback], gradient_accumulation_steps=accumulate)
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    assert losses == same_losses
    assert torch.equal(state, same_state)
    records = callback.monitor.records
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert all(not record.failed for record in records)
    assert all({"loss", "gradient_norms", "lambda_max"} <= record.readings.keys() for record in records)
    header, *lines = map(json.loads, (tmp_path / "run.jsonl").read_text().splitlines())
    assert header["optimizer"]["kind"] == "AdamW"
    assert len(lines) == 6
    assert records[0].readings["sharpness"].value > 0
    assert records[-1].readings["sharpness"].why  # the schedule has come to zero


def test_the_batch_is_of_the_first_samples_and_the_loss_is_the_models(tmp_path):
    callback = MonitorCallback(every=6, budget=None, quantities=["loss"])
    trainer, *_ = trained(tmp_path, [callback])
    rows = Tokens().rows[:4]
    with torch.no_grad():
        expected = trainer.model.eval()(input_ids=rows, labels=rows).loss
    (record,) = callback.monitor.records
    assert record.readings["loss"].value == pytest.approx(float(expected), rel=1e-6)


def test_streams_want_a_batch(tmp_path):
    with pytest.raises(SpecError, match="a stream"):
        trained(tmp_path, [MonitorCallback()], Stream())
    rows = Tokens().rows[:2]
    callback = MonitorCallback([{"input_ids": rows, "labels": rows}], every=6, budget=None, quantities=["loss"])
    trained(tmp_path, [callback], Stream())
    assert callback.monitor.records[0].readings["loss"].value > 0
