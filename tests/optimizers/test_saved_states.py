"""Optimizers' states out of checkpoints: the same numbers as of the live optimizer, or a refusal that names why."""

import re
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import LoadError, SpecError, UntrustedFileError
from hessdiag.optimizers.dual_norm import dual_norm
from hessdiag.optimizers.preconditioning import direction, of_optimizer, preconditioning
from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.problem.problem import Problem


def stack(width=6):
    """As the reference's: two biases of one shape, and two weights of one shape."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 2)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh()))).double()


def batches(count=4):
    torch.manual_seed(1)
    return [(torch.randn(8, 4).double(), torch.randn(8, 2).double()) for _ in range(count)]


def train(model, optimizer, steps=60):
    problem = Problem(model, data=batches(), loss="mse")
    for step in range(steps):
        optimizer.zero_grad()
        problem.evaluate(problem.data[step % 4]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return Problem(model, data=batches(), loss="mse")


def two_groups(model, kind=torch.optim.AdamW, frozen=(), **more):
    """With and without weight decay, as trainers make them."""
    named = list(model.named_parameters())
    kept = [(name, one) for name, one in named if name not in frozen]
    return kind(
        [
            {"params": [one for _, one in kept if one.ndim > 1], "weight_decay": 0.1},
            {"params": [one for _, one in kept if one.ndim < 2], "weight_decay": 0.0, "lr": 3e-3},
        ],
        lr=1e-3,
        **more,
    )


def same(problem, optimizer, spec=None, **more):
    """A state from a file gives what the live optimizer gives: P, rates, threshold and the next step."""
    live, found = of_optimizer(problem, optimizer), preconditioning(problem, spec, **more)
    if live.diagonal is not None:
        torch.testing.assert_close(found.diagonal, live.diagonal, rtol=1e-12, atol=0)
    for name in ("rates", "weight_decay"):
        assert torch.equal(torch.as_tensor(getattr(found, name)), torch.as_tensor(getattr(live, name)))
    assert (found.threshold, found.kind, found.coupled, found.plain) == (
        live.threshold, live.kind, live.coupled, live.plain
    )  # fmt: skip
    torch.testing.assert_close(direction(problem, found), direction(problem, live), rtol=1e-12, atol=1e-18)
    assert found.state == "checkpoint"
    return found


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


MAKERS = {
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3),
    "amsgrad": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True, betas=(0.9, 0.9)),
    "coupled": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.1),
    "groups": lambda model: two_groups(model),
    "nadam": lambda model: torch.optim.NAdam(model.parameters(), lr=1e-3),
    "radam": lambda model: torch.optim.RAdam(model.parameters(), lr=1e-3, betas=(0.9, 0.95)),
    "adamax": lambda model: torch.optim.Adamax(model.parameters(), lr=1e-3),
    "rmsprop": lambda model: torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.5, centered=True),
    "adagrad": lambda model: torch.optim.Adagrad(model.parameters(), lr=1e-2, lr_decay=0.01),
    "adadelta": lambda model: torch.optim.Adadelta(model.parameters()),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True),
    "plain": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, weight_decay=0.1),
    "muon": lambda model: torch.optim.Muon([one for one in model.parameters() if one.ndim == 2], lr=1e-3),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_file_gives_what_the_live_optimizer_gives(here, name):
    model = stack()
    optimizer = MAKERS[name](model)
    problem = train(model, optimizer, 20)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, "ckpt.pt")
    found = same(problem, optimizer, "ckpt.pt#optimizer")
    assert found.notes[0].startswith(f"optimizer: {type(optimizer).__name__}'s state")
    assert "by the only assignment in the model's order that fits their shapes" in found.notes[0]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (lambda state: {"optimizer": state}, "#optimizer"),
        (lambda state: {"optimizer_state_dict": state, "loss": 0.5}, "#optimizer_state_dict"),
        (lambda state: {"optimizer_state_dict": state}, ""),
        (lambda state: {"optimizer_states": [state], "pytorch-lightning_version": "2.5"}, "#optimizer_states.0"),
        (lambda state: {"optimizer_states": [state], "lr_schedulers": [{"last_epoch": 3}]}, "#optimizer_states"),
        (lambda state: {"trainer": {"optim": state}}, "#trainer.optim"),
        (lambda state: state, ""),
    ],
)
def test_wherever_trainers_keep_it(here, content, key):
    """As optimizer.pt of the Hugging Face Trainer, which is the state alone."""
    model = stack()
    optimizer = two_groups(model)
    problem = train(model, optimizer, 5)
    torch.save(content(optimizer.state_dict()), "optimizer.pt")
    same(problem, optimizer, f"./optimizer.pt{key}")


def test_weights_and_optimizer_of_one_checkpoint(here):
    (here / "train.py").write_text(textwrap.dedent(
        """
        import torch
        from torch import nn
        def model():
            return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
        """
    ))  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    trained = train(model, optimizer)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "ckpt.pt")
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    torch.save({"x": x, "y": y}, "data.pt")
    problem = load_problem(
        ProblemRequest("train.py:model", weights="ckpt.pt", data="data.pt", loss="mse", device="cpu")
    )
    found = preconditioning(problem, "ckpt.pt#optimizer")
    torch.testing.assert_close(found.diagonal, of_optimizer(trained, optimizer).diagonal, rtol=1e-12, atol=0)
    assert found.likeness > 0.3


def test_swapped_biases_are_never_taken_in_silence(here):
    """The reference's case: two groups and a frozen weight. By order of `model.parameters()` two go wrong in silence."""
    model = stack()
    optimizer = two_groups(model, frozen=("2.weight",))
    model[2].weight.requires_grad_(False)
    problem = train(model, optimizer)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    with pytest.raises(SpecError, match=r"in 2 ways, for 2\.weight, 4\.weight could be swapped") as caught:
        preconditioning(problem, "./optimizer.pt")
    assert "--optimizer train.py:make_optimizer --state ./optimizer.pt" in caught.value.hint
    make = lambda model: two_groups(model, frozen=("2.weight",))  # noqa: E731
    same(problem, optimizer, make, state="optimizer.pt")


def test_frozen_weights_that_the_optimizer_was_given_keep_their_place(here):
    model = stack()
    model[2].weight.requires_grad_(False)
    optimizer = two_groups(model)
    problem = train(model, optimizer)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    found = same(problem, optimizer, "./optimizer.pt")
    model[2].weight.requires_grad_(True)
    thawed = preconditioning(Problem(model, data=batches(), loss="mse"), "./optimizer.pt")
    assert torch.isinf(thawed.diagonal).sum() == 36
    assert any("2.weight: no state, so frozen or never stepped" in note for note in thawed.notes)
    assert len(found.diagonal) == len(thawed.diagonal) - 36


def test_groups_in_another_order_than_the_models_need_the_function(here):
    model = stack()
    backwards = lambda model: torch.optim.Adam(reversed(list(model.parameters())), lr=1e-3)  # noqa: E731
    optimizer = backwards(model)
    problem = train(model, optimizer)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    with pytest.raises(LoadError, match="no assignment fits"):
        preconditioning(problem, "./optimizer.pt")
    same(problem, optimizer, backwards, state="optimizer.pt")


def test_the_users_function_is_named_by_a_spec(here):
    (here / "train.py").write_text(textwrap.dedent(
        """
        import torch
        def make_optimizer(model):
            return torch.optim.AdamW(reversed(list(model.parameters())), lr=1.0, weight_decay=0.3)
        """
    ))  # fmt: skip
    model = stack()
    optimizer = torch.optim.AdamW(reversed(list(model.parameters())), lr=2e-3, weight_decay=0.1)
    problem = train(model, optimizer)
    torch.save({"optimizer": optimizer.state_dict()}, "ckpt.pt")
    found = same(problem, optimizer, "train.py:make_optimizer", state="ckpt.pt#optimizer")
    assert found.lr == 2e-3  # the file's, which a schedule may have changed
    assert "by the order of train.py:make_optimizer" in found.notes[0]


def test_a_class_of_optimizers_tells_no_order(here):
    """`adam` is given the model's own order by this package, which may not be the user's."""
    model = stack()
    optimizer = torch.optim.Adam(reversed(list(model.parameters())), lr=1e-3)
    problem = train(model, optimizer)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    with pytest.raises(LoadError, match="no assignment fits"):
        preconditioning(problem, "adam", state="optimizer.pt")


def test_names_in_the_file_win(here):
    model = stack()
    named = list(model.named_parameters())
    optimizer = torch.optim.Adam(list(reversed(named)), lr=1e-3)
    problem = train(model, optimizer)
    state = optimizer.state_dict()
    assert state["param_groups"][0]["param_names"][0] == "6.bias"
    torch.save(state, "optimizer.pt")
    found = same(problem, optimizer, "./optimizer.pt")
    assert "by the names that it holds" in found.notes[0]
    state["param_groups"][0]["param_names"] = [f"module._orig_mod.{name}" for name, _ in reversed(named)]
    torch.save(state, "wrapped.pt")
    same(problem, optimizer, "./wrapped.pt")
    state["param_groups"][0]["param_names"][3] = "module._orig_mod.2.wieght"
    torch.save(state, "other.pt")
    with pytest.raises(LoadError, match=r"a state of 2\.wieght, which the model has not. Did you mean 2\.weight"):
        preconditioning(problem, "./other.pt")
    names = state["param_groups"][0]["param_names"]
    names[:] = [name for name, _ in reversed(named)]
    names[0], names[1] = names[1], names[0]
    torch.save(state, "shapes.pt")
    with pytest.raises(LoadError, match=r"6\.weight in \./shapes\.pt is of shape \(2,\), and 6\.weight of \(2, 6\)"):
        preconditioning(problem, "./shapes.pt")


def test_keys_by_name_as_gathered_from_sharded_runs(here):
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    problem = train(model, optimizer)
    state, names = optimizer.state_dict(), [name for name, _ in model.named_parameters()]
    state["param_groups"][0]["params"] = list(reversed(names))
    state["state"] = {names[index]: value for index, value in state["state"].items()}
    torch.save(state, "full.pt")
    same(problem, optimizer, "./full.pt")


def test_every_parameter_has_its_own_step(here):
    """Layers that were thawed later were appended, and have stepped less often."""
    model = stack()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    train(model, optimizer, 3)
    model[0].weight.requires_grad_(True)
    optimizer.add_param_group({"params": [model[0].weight], "lr": 1e-4})
    problem = train(model, optimizer, 1)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    found = same(problem, optimizer, "./optimizer.pt")
    v = optimizer.state[model[0].weight]["exp_avg_sq"]
    assert optimizer.state[model[0].weight]["step"] == 1
    expected = (v / (1 - 0.999)).sqrt().reshape(-1) + 1e-8
    torch.testing.assert_close(found.diagonal[:24], expected, rtol=1e-10, atol=0)
    assert "at step 1 to 4" in found.notes[0]
    assert found.rates[0].item() == 1e-4


def test_tied_weights_that_were_given_twice(here):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))

    model = Tied().double()
    every = [one for _, one in model.named_parameters(remove_duplicate=False)]
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = torch.optim.Adam(every, lr=1e-3)
    problem = train(model, optimizer)
    state = optimizer.state_dict()
    assert len(set(state["param_groups"][0]["params"])) < len(state["param_groups"][0]["params"])
    torch.save(state, "optimizer.pt")
    live = of_optimizer(problem, optimizer)
    found = preconditioning(problem, "./optimizer.pt")
    torch.testing.assert_close(found.diagonal, live.diagonal, rtol=1e-12, atol=0)


def test_a_schedules_learning_rate_is_the_current_one(here):
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    problem = train(model, optimizer)
    schedule.step()
    torch.save(optimizer.state_dict(), "optimizer.pt")
    assert same(problem, optimizer, "./optimizer.pt").lr == 5e-4
    assert preconditioning(problem, "./optimizer.pt", lr=0.25).lr == 0.25


OTHERS = {
    "lion": ({"exp_avg": torch.ones(6, 4)}, "exp_avg alone, as Lion's"),
    "soap": ({"exp_avg": torch.ones(6, 4), "exp_avg_sq": torch.ones(6, 4), "GG": torch.ones(4, 4)}, "GG, exp_avg"),
    "adam8bit": ({"state1": torch.ones(24), "state2": torch.ones(24), "step": 3}, "state1, state2, step"),
    "lamb": ({"exp_avg": torch.ones(6, 4), "exp_avg_sq": torch.ones(6, 4)}, "of no optimizer of torch's"),
    "adafactor": ({"row_var": torch.ones(6), "col_var": torch.ones(4), "step": 1}, "col_var, row_var"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_states_of_other_optimizers_are_refused_by_name(here, name):
    state, says = OTHERS[name]
    model = nn.Linear(4, 6, bias=False).double()
    group = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, "params": [0]}
    torch.save({"state": {0: state}, "param_groups": [group]}, "optimizer.pt")
    problem = Problem(model, data=[(torch.randn(8, 4).double(), torch.randn(8, 6).double())], loss="mse")
    with pytest.raises(SpecError, match=re.escape(says)):
        preconditioning(problem, "./optimizer.pt")
    if name != "lamb":  # whose state cannot be told from Adam's
        with pytest.raises((SpecError, LoadError), match=r"Adam does not keep|no exp_avg_sq"):
            preconditioning(problem, "adam", state="optimizer.pt")


def test_the_wrong_class_is_refused(here):
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    problem = train(model, optimizer, 2)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    with pytest.raises(SpecError, match=r"is Adam's \(exp_avg, exp_avg_sq, step\), and SGD was named"):
        preconditioning(problem, "sgd", state="optimizer.pt")


def test_older_files_do_not_say_whether_decay_is_decoupled(here):
    model = stack()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    problem = train(model, optimizer, 20)
    state = optimizer.state_dict()
    del state["param_groups"][0]["decoupled_weight_decay"]
    torch.save(state, "optimizer.pt")
    with pytest.raises(SpecError, match="Adam and AdamW write the same state") as caught:
        preconditioning(problem, "./optimizer.pt")
    assert "--optimizer adamw --state ./optimizer.pt" in caught.value.hint
    found = same(problem, optimizer, "adamw", state="optimizer.pt")
    assert not found.coupled
    state["param_groups"][0]["weight_decay"] = 0
    torch.save(state, "none.pt")
    assert preconditioning(problem, "./none.pt").kind == "adam"


def test_another_model_is_refused_with_both_shapes(here):
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(model, optimizer, 2)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    other = Problem(stack(5), data=batches(), loss="mse")
    with pytest.raises(
        LoadError, match=r"holds 1 tensors of shape \(6, 4\), and the model has 0 \(it has 0\.weight \(5, 4\)"
    ):
        preconditioning(other, "./optimizer.pt")
    with pytest.raises(
        LoadError, match=r"of 0\.weight in optimizer\.pt is of shape \(6, 4\), and 0\.weight of \(5, 4\)"
    ):
        preconditioning(other, lambda parameters: torch.optim.Adam(parameters), state="optimizer.pt")
    short = Problem(
        nn.Sequential(*stack()[:4]), data=[(torch.randn(8, 4).double(), torch.randn(8, 6).double())], loss="mse"
    )
    with pytest.raises(LoadError, match=r"makes groups of 4 tensors, and optimizer\.pt holds groups of 8"):
        preconditioning(short, lambda parameters: torch.optim.Adam(parameters), state="optimizer.pt")


def test_what_is_no_state_is_said(here):
    model = stack()
    problem = Problem(model, data=batches(), loss="mse")
    optimizer = torch.optim.Adam(model.parameters())
    torch.save({"model": model.state_dict(), "opt": optimizer.state_dict()}, "ckpt.pt")
    with pytest.raises(LoadError, match="holds no optimizer's state") as caught:
        preconditioning(problem, "ckpt.pt#model")
    assert caught.value.hint == "ckpt.pt#opt"
    with pytest.raises(LoadError, match=r"has no key 'optimizer'; it has model, opt"):
        preconditioning(problem, "ckpt.pt#optimizer")
    with pytest.raises(SpecError, match="has stepped nothing yet"):
        preconditioning(problem, "ckpt.pt#opt")
    torch.save(
        {"optimizer_states": [optimizer.state_dict()] * 1 + [torch.optim.SGD(model.parameters()).state_dict()]},
        "two.ckpt",
    )
    with pytest.raises(SpecError, match="the states of 2 optimizers") as caught:
        preconditioning(problem, "two.ckpt#optimizer_states")
    assert caught.value.hint == "two.ckpt#optimizer_states.0 or two.ckpt#optimizer_states.1"
    with pytest.raises(LoadError, match="a list of 2, counted from 0"):
        preconditioning(problem, "two.ckpt#optimizer_states.2")
    with pytest.raises(LoadError, match="does not exist"):
        preconditioning(problem, "nowhere.pt#optimizer")
    with pytest.raises(SpecError, match="two files"):
        preconditioning(problem, "ckpt.pt#opt", state="two.ckpt")


def test_a_file_with_code_is_refused(here):
    class Evil:
        def __reduce__(self):
            return subprocess.check_call, ([sys.executable, "-c", "open('ran', 'w')"],)

    torch.save({"optimizer": {"state": {0: {"step": Evil()}}, "param_groups": [{"params": [0]}]}}, "ckpt.pt")
    with pytest.raises(UntrustedFileError, match="nothing of it was run"):
        preconditioning(Problem(stack(), data=batches(), loss="mse"), "ckpt.pt#optimizer")
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    ("state", "groups"),
    [
        ([], [{"params": [0]}]),
        ({}, {"params": [0]}),
        ({}, [{"params": 3}]),
        ({}, [{"params": []}]),
        ({5: {}}, [{"params": [0]}]),
        ({0: torch.ones(3)}, [{"params": [0]}]),
        ({}, [{"params": [0], "param_names": ["a", "b"]}]),
        ({}, [[0]]),
    ],
)
def test_damaged_states_are_refused(here, state, groups):
    torch.save({"state": state, "param_groups": groups}, "optimizer.pt")
    with pytest.raises(LoadError, match=r"damaged|flat shards"):
        preconditioning(Problem(stack(), data=batches(), loss="mse"), "./optimizer.pt")


def test_a_state_that_is_not_the_models_is_seen_by_its_gradients(here):
    """Two same-shaped weights swapped under their names."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(),
                          nn.Linear(12, 2)).double()  # fmt: skip
    optimizer = torch.optim.Adam(list(model.named_parameters()), lr=1e-3)
    problem = train(model, optimizer, 300)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    right = preconditioning(problem, "./optimizer.pt")
    assert right.likeness > 0.3
    assert not any("squared gradients" in note for note in right.notes)
    state = optimizer.state_dict()
    names = state["param_groups"][0]["param_names"]
    two, four = names.index("2.weight"), names.index("4.weight")
    names[two], names[four] = names[four], names[two]
    torch.save(state, "swapped.pt")
    found = preconditioning(problem, "./swapped.pt")
    assert any("2.weight" in note and "4.weight" in note and "may be swapped" in note for note in found.notes)
    torch.manual_seed(5)
    for parameter in model.parameters():
        optimizer.state[parameter]["exp_avg_sq"] = torch.rand_like(parameter)
    torch.save(optimizer.state_dict(), "random.pt")
    noise = preconditioning(problem, "./random.pt")
    assert noise.likeness < 0.2
    assert any("hardly goes with the squared gradients here" in note for note in noise.notes)


def test_every_group_has_its_own_settings(here):
    model = stack()
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [one for _, one in named if one.ndim > 1],
                "betas": (0.5, 0.9),
                "eps": 1e-2,
                "weight_decay": 0.3,
            },
            {"params": [one for _, one in named if one.ndim < 2], "lr": 5e-3},
        ],
        lr=1e-3,
        weight_decay=0.0,
    )
    problem = train(model, optimizer, 12)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    found = same(problem, optimizer, "./optimizer.pt")
    weight, bias = (optimizer.state[one]["exp_avg_sq"].reshape(-1) for one in (model[0].weight, model[0].bias))
    torch.testing.assert_close(found.diagonal[:24], (weight / (1 - 0.9**12)).sqrt() + 1e-2, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.diagonal[24:30], (bias / (1 - 0.999**12)).sqrt() + 1e-8, rtol=1e-12, atol=0)
    assert (found.rates[0].item(), found.rates[24].item(), found.lr) == (1e-3, 5e-3, 5e-3)
    assert (found.weight_decay[0].item(), found.weight_decay[24].item()) == (0.3, 0.0)
    assert found.threshold == pytest.approx((2 - 1e-3 * 0.3) * 1.5 / 0.5, rel=1e-12)
    assert any("groups differ in momentum or decay" in note for note in found.notes)


def test_muons_ratio_is_that_of_the_live_one(here):
    model = stack()
    optimizer = MAKERS["muon"](model)
    problem = train(model, optimizer, 5)
    torch.save(optimizer.state_dict(), "optimizer.pt")
    operator = HessianOperator(problem, check=False)
    gradient = operator.gradient()
    found, live = preconditioning(problem, "./optimizer.pt"), of_optimizer(problem, optimizer)
    assert found.threshold is None
    assert dual_norm(problem, operator, gradient, found) == dual_norm(problem, operator, gradient, live)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda group, state: group.update(betas=(1.5, 0.9)), "betas of group 0"),
        (lambda group, state: group.update(betas="ab"), "betas of group 0"),
        (lambda group, state: group.update(lr="x"), "lr of group 0"),
        (lambda group, state: group.update(lr=None), "lr of group 0"),
        (lambda group, state: group.pop("eps"), "has no eps: it is no group of Adam"),
        (lambda group, state: state.update(step="x"), r"step of 0\.weight"),
        (lambda group, state: state["exp_avg_sq"].mul_(-1), r"of 0\.weight is negative or not finite"),
        (lambda group, state: state["exp_avg_sq"].fill_(float("nan")), r"of 0\.weight is negative or not finite"),
        (lambda group, state: group.update(amsgrad=True), r"of 0\.weight holds no max_exp_avg_sq"),
    ],
)
def test_what_no_optimizer_wrote_is_refused(here, change, says):
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    problem = train(model, optimizer, 2)
    state = optimizer.state_dict()
    change(state["param_groups"][0], state["state"][0])
    torch.save(state, "optimizer.pt")
    with pytest.raises(LoadError, match=says):
        preconditioning(problem, "./optimizer.pt")


def test_a_schedule_that_ended_at_zero_asks_for_the_learning_rate(here):
    model = stack()
    optimizer = two_groups(model)
    problem = train(model, optimizer, 2)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = 0.0
    torch.save(state, "optimizer.pt")
    with pytest.raises(SpecError, match="is 0, as schedules end"):
        preconditioning(problem, "./optimizer.pt")
    assert preconditioning(problem, "./optimizer.pt", lr=0.5).lr == 0.5


def test_states_in_another_dtype_than_the_parameters(here):
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    problem = train(model, optimizer, 9)
    state = optimizer.state_dict()
    for entry in state["state"].values():
        entry.update({key: value.bfloat16() for key, value in entry.items() if key != "step"})
    torch.save(state, "optimizer.pt")
    found, live = preconditioning(problem, "./optimizer.pt"), of_optimizer(problem, optimizer)
    torch.testing.assert_close(found.diagonal, live.diagonal, rtol=4e-3, atol=1e-8)
    torch.testing.assert_close(direction(problem, found), direction(problem, live), rtol=2e-2, atol=1e-5)
