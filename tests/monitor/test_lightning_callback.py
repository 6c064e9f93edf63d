"""A Trainer with the callback trains to the same bits as one without it."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

L = pytest.importorskip("lightning")

from hessdiag.errors import LoadError  # noqa: E402
from hessdiag.monitor.lightning import MonitorCallback  # noqa: E402

QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)


class Lit(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.seen = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        self.seen.append(float(loss.detach()))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def trained(callbacks=(), **options):
    L.seed_everything(3, verbose=False)
    model = Lit()
    samples = TensorDataset(torch.randn(96, 6), torch.randint(3, (96,)))
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", callbacks=list(callbacks), **QUIET, **options)
    trainer.fit(model, DataLoader(samples, batch_size=16, shuffle=True))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state, model.seen, torch.get_rng_state(), trainer.callback_metrics


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_the_same_to_the_bit(accumulate):
    callback = MonitorCallback(every=1, budget=None)
    plain = trained(accumulate_grad_batches=accumulate)
    watched = trained([callback], accumulate_grad_batches=accumulate)
    assert all(torch.equal(value, watched[0][name]) for name, value in plain[0].items())
    assert plain[1] == watched[1]
    assert torch.equal(plain[2], watched[2])
    assert plain[3] == watched[3]
    records = callback.monitor.records
    assert [record.step for record in records] == list(range(1, 12 // accumulate + 1))
    assert {"loss", "lambda_max", "sharpness"} <= records[-1].readings.keys()
    assert all(not record.failed for record in records)


def test_a_look_is_of_the_batch_that_was_given_and_of_the_live_weights():
    x, y = torch.randn(8, 6), torch.randint(3, (8,))
    callback = MonitorCallback([(x, y)], every=12, budget=None, quantities=["loss"])
    state, *_ = trained([callback])
    model = Lit()
    model.load_state_dict(state)
    expected = F.cross_entropy(model.eval().net(x), y)
    (record,) = callback.monitor.records
    assert record.readings["loss"].value == pytest.approx(float(expected), rel=1e-6)


def test_the_log_is_closed_where_training_fails(tmp_path):
    class Fails(Lit):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 3:
                raise ValueError("stop")

    callback = MonitorCallback(every=1, budget=None, quantities=["loss"], log=tmp_path / "run.jsonl")
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **QUIET)
    samples = TensorDataset(torch.randn(96, 6), torch.randint(3, (96,)))
    with pytest.raises(ValueError, match="stop"):
        trainer.fit(Fails(), DataLoader(samples, batch_size=16))
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) >= 4


def test_what_cannot_be_looked_at_is_said_before_training():
    class ByHand(Lit):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    trainer = L.Trainer(max_epochs=1, accelerator="cpu", callbacks=[MonitorCallback()], **QUIET)
    samples = TensorDataset(torch.randn(32, 6), torch.randint(3, (32,)))
    with pytest.raises(LoadError, match="optimizes by hand"):
        trainer.fit(ByHand(), DataLoader(samples, batch_size=16))
