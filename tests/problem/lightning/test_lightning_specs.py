"""LightningModules, data modules and checkpoints as a command line names them."""

import importlib.util
from pathlib import Path

import pytest
import torch

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.lightning import optimizer
from hessdiag.problem.load import ALL, ProblemRequest, load_problem

L = pytest.importorskip("lightning")

LIT = Path(__file__).with_name("lit.py")


def loaded(model="model", data=None, **options):
    data = None if data is None else f"{LIT}:{data}"
    return load_problem(ProblemRequest(f"{LIT}:{model}", data=data, device="cpu", **options))


def said(problem):
    return "\n".join(problem.notes)


def plain_value(problem):
    """The mean cross-entropy of all batches in one, by hand."""
    x, y = (torch.cat([batch[i] for batch in problem.data]) for i in (0, 1))
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(problem.model(x), y))


def test_module_and_data_module():
    problem = loaded(data="datamodule", dtype="float64")
    assert problem.loss_name == "training_step"
    assert len(problem.data[0][0]) == 16
    assert abs(problem.value() - plain_value(problem)) <= 1e-12
    assert "not run: its on_train_batch_start" in said(problem)
    assert "train_dataloader of Data, after setup('fit'); prepare_data was not called" in said(problem)
    assert "self.current_epoch, which is 0 here" in said(problem)


@pytest.mark.parametrize("data", ["Data", "Data()", "datamodule.train_dataloader"])
def test_a_data_module_by_other_names(data):
    assert len(loaded(data=data, batches=ALL).data) == 3


def test_another_loader_of_a_data_module():
    assert [len(x) for x, _ in loaded(data="datamodule.val_dataloader").data] == [40]


def test_several_loaders_come_together_as_a_trainer_takes_them():
    problem = loaded("Two(features=8)", "datamodule.two", batches=ALL)
    assert [len(batch["a"][0]) for batch in problem.data] == [20, 20, 20, 20]
    assert problem.value() > 0


def test_a_module_brings_its_own_loader():
    problem = loaded("Loaded(features=8)")
    assert len(problem.data[0][0]) == 8
    assert not problem.source["synthetic"]


def test_without_data_a_batch_is_made_up():
    problem = loaded()
    assert problem.source["synthetic"]
    assert "uniform classes" in said(problem)


def test_a_loss_by_name_takes_its_place():
    problem = loaded(data="datamodule", loss="ce")
    assert problem.loss_name == "ce"
    assert "training_step" not in said(problem)


def test_layers_that_the_trainer_would_build():
    assert any(name.startswith("head") for name, _ in loaded("Late(features=8)", "datamodule").named_parameters)


def test_a_data_module_that_is_not_prepared():
    with pytest.raises(LoadError, match=r"NotThere.setup raised FileNotFoundError: mnist.pt; .*prepare_data") as caught:
        loaded(data="NotThere")
    assert "prepare_data() once" in caught.value.hint


def lit_module():
    spec = importlib.util.spec_from_file_location("lit_for_training", LIT)
    lit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lit)
    return lit


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    lit = lit_module()

    class Trained(lit.LitClassifier):
        on_train_batch_start = L.LightningModule.on_train_batch_start

    class Prepared(lit.Sized):
        prepare_data = L.LightningDataModule.prepare_data

    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    folder = tmp_path_factory.mktemp("lightning")
    torch.manual_seed(0)
    model = Trained(8, width=5)
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=folder, **quiet)
    trainer.fit(model, Prepared(batch_size=10))
    trainer.save_checkpoint(folder / "epoch=1.ckpt")
    return folder / "epoch=1.ckpt", model


def test_a_checkpoint_gives_its_class_what_it_was_made_with(checkpoint):
    file, model = checkpoint
    problem = loaded("LitClassifier", "datamodule", weights=str(file))
    assert all(torch.equal(a, b) for a, b in zip(problem.model.parameters(), model.parameters(), strict=True))
    assert "hyper_parameters features=8, width=5, lr=0.001" in said(problem)
    assert "self.current_epoch, which is 2 here" in said(problem)
    assert any(entry["path"] == str(file) for entry in problem.source["files"])


def test_the_spec_has_the_last_word(checkpoint):
    file, _ = checkpoint
    assert loaded("LitClassifier(lr=0.5)", "datamodule", weights=str(file)).model.hparams.lr == 0.5
    with pytest.raises(LoadError, match="of another shape"):
        loaded("LitClassifier(width=7)", "datamodule", weights=str(file))


def test_a_checkpoint_gives_its_data_module_what_it_was_made_with(checkpoint):
    file, _ = checkpoint
    problem = loaded("LitClassifier", "Sized", weights=str(file))
    assert len(problem.data[0][0]) == 10
    assert "data: Sized with the checkpoint's datamodule_hyper_parameters batch_size=10" in said(problem)
    assert len(loaded("LitClassifier", "Sized(batch_size=7)", weights=str(file)).data[0][0]) == 7
    assert len(loaded("LitClassifier(features=8)", "Sized").data[0][0]) == 4  # without a checkpoint


def test_settings_that_were_saved_as_one_argument_are_given_as_one(checkpoint, tmp_path):
    file, _ = checkpoint
    content = torch.load(file, weights_only=False)
    content |= {"hparams_name": "config", "hyper_parameters": {"features": 8, "width": 5}}
    torch.save(content, tmp_path / "one.ckpt")
    problem = loaded("OfConfig", "datamodule", weights=str(tmp_path / "one.ckpt"))
    assert problem.model.config == {"features": 8, "width": 5}
    assert "hyper_parameters config={'features': 8, 'width': 5}" in said(problem)


def test_a_model_that_is_there_takes_the_weights(checkpoint):
    file, _ = checkpoint
    with pytest.raises(LoadError, match="of another shape"):  # 16 wide
        loaded("model", "datamodule", weights=str(file))


def test_settings_that_are_no_plain_data_stay_in_a_file_that_is_not_run(checkpoint, tmp_path):
    file, _ = checkpoint
    content = torch.load(file, weights_only=False)
    content["hyper_parameters"]["width"] = Path
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(LoadError, match="pathlib"):
        loaded("LitClassifier", "datamodule", weights=str(tmp_path / "odd.ckpt"))


def test_an_optimizer_that_wants_a_trainer_is_answered_with_one_that_does_not():
    model = lit_module().Hungry(8)
    with pytest.raises(LoadError, match=r"reads self\.trainer\.datamodule") as caught:
        optimizer.configured(model)
    assert caught.value.hint == "--optimizer adam, or --optimizer train.py:make"


def test_the_optimizer_is_the_modules_own():
    import hessdiag
    from hessdiag.optimizers.recipe import recipe

    problem = loaded(data="datamodule")
    step = hessdiag.check(problem).step
    assert (step.optimizer, step.lr, step.origin) == ("AdamW", 1e-3, "LitClassifier.configure_optimizers")
    assert hessdiag.check(problem, optimizer="sgd", lr=0.1).step.origin is None
    sharp = hessdiag.sharpness(problem)
    assert sharp.optimizer.name.startswith("AdamW(lr=0.001")
    assert recipe(None, 0.5, model=problem.model).origin is None
    with pytest.raises(SpecError, match="makes 2 optimizers"):
        hessdiag.check(loaded("Two(features=8)", "datamodule.two"))


def test_the_optimizer_takes_part_in_the_race():
    from hessdiag.questions.escape.contenders import entrants

    names = [entrant.name for entrant in entrants(loaded(data="datamodule"), None, None, None)]
    assert names[0] == "LitClassifier.configure_optimizers"
    assert "adam" in names
