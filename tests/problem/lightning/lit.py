"""A Lightning project as people have it, which the tests name on command lines."""

import lightning as L  # noqa: N812
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class LitClassifier(L.LightningModule):
    def __init__(self, features, width=16, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss + 0 * self.current_epoch

    def on_train_batch_start(self, batch, batch_idx):
        raise AssertionError

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


def samples():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(40, 8, generator=generator), torch.randint(3, (40,), generator=generator))


class Data(L.LightningDataModule):
    def prepare_data(self):
        raise AssertionError

    def setup(self, stage):
        assert stage == "fit"
        self.samples = samples()

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=16)

    def val_dataloader(self):
        return DataLoader(self.samples, batch_size=40)

    def two(self):
        return {"a": DataLoader(self.samples, batch_size=20), "b": DataLoader(self.samples, batch_size=10)}


class NotThere(L.LightningDataModule):
    def prepare_data(self):
        pass

    def setup(self, stage):
        raise FileNotFoundError("mnist.pt")


class Loaded(LitClassifier):
    def setup(self, stage):
        self.samples = samples()

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=8)


class Two(LitClassifier):
    def training_step(self, batch, batch_idx):
        return sum(F.cross_entropy(self(x), y) for x, y in batch.values())

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]


class Sized(Data):
    def __init__(self, batch_size=4):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=self.hparams.batch_size)


class OfConfig(LitClassifier):
    def __init__(self, config):
        super().__init__(config["features"], config["width"])
        self.config = config


class Hungry(LitClassifier):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1 * self.trainer.datamodule.batch_size)


class Late(LitClassifier):
    def configure_model(self):
        self.head = nn.Linear(3, 3)


model = LitClassifier(8)
datamodule = Data()
