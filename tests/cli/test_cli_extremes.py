"""Numbers far out and models at the edge end in an answer or in one line, never in an internal error."""

import re

import pytest

HUGE, BEYOND = "1000000000", "999999999999999999999"


@pytest.mark.parametrize(
    ("args", "code", "answer"),
    [
        (["chain", "--seeds", BEYOND], 3, r"chains need .* of memory are free.\n  try: --seeds \d+\n"),
        (["chain", "--scale", "1e308"], 2, "must be positive"),
        (["chain", "--scale", "nan"], 2, "must be positive"),
        (["chain", "--scale", "inf"], 2, "must be positive"),
        (["chain", "--length", BEYOND], 2, "at most 100,000"),
        (["chain", "--scale", "1e-320", "--length", "3", "--seeds", "50"], 0, ""),
        (["chain", "--scale", "1e300", "--length", "3", "--seeds", "50"], 0, ""),
        (["forward", "--depth", BEYOND], 3, r"layers need .*\n  try: --depth \d+\n"),
        (["forward", "--width", HUGE], 3, r"units need .*\n  try: --width \d{2,}\n"),
        (["forward", "--seeds", HUGE, "--depth", "200"], 3, r"networks need .*\n  try: --seeds \d+\n"),
        (["forward", "--width", "0"], 2, "--width"),
        (["forward", "--depth", "-1"], 2, "--depth"),
        (["vanishing", "--depth", BEYOND], 3, r"try: --depth \d+ at this width"),
        (["vanishing", "--depth", "4", "--batch", BEYOND], 3, r"samples need .*\n  try: --batch \d+\n"),
        (["vanishing", "--depth", "4", "--seeds", BEYOND], 3, r"networks need .*\n  try: --seeds \d+\n"),
        (["diag-share", "builtin:mlp", "--batch-size", BEYOND], 3, r"are made up, not .*\n  try: --batch-size \d+\n"),
        (["eigs", "builtin:mlp", "--batches", HUGE], 3, r"are made up, not .*\n  try: --batches \d+\n"),
        (["eigs", "builtin:mlp", "--tol", "nan"], 2, "--tol"),
        (["vanishing", "--width", HUGE], 3, r"try: --width \d+ at this depth\n$"),
        (["vanishing", "--depth", HUGE, "--width", "1"], 3, r"try: --depth \d+ at this width"),
        (["vanishing", "builtin:mlp(depth={depth},width=2)", "--depth", BEYOND], 2, r"100,000 layers.*\n  try: depth=100000"),
        (["vanishing", "builtin:mlp(depth={depth},width=2)", "--depth", "2", "--seeds", HUGE], 3, r"networks need .*\n  try: --seeds \d+\n"),
        (["forward", "--depth", HUGE, "--width", "1", "--seeds", "2"], 3, r"layers need .*\n  try: --depth \d+\n"),
        (["blocks", "models.py:plain", "--probes", HUGE], 3, r"per layer need .*\n  try: --probes \d+\n"),
        (["blocks", "builtin:mlp", "--probes", BEYOND], 3, r"per layer need .*\n  try: --probes \d+\n"),
        (["blocks", f"builtin:mlp(width={HUGE})"], 2, r"of memory are free.\n  try: width=\d+\n"),
        (["blocks", f"builtin:mlp(depth={HUGE})"], 2, r"at most 100,000 layers.*\n  try: depth=100000\n"),
        (["blocks", f"builtin:chain(length={BEYOND})"], 2, r"at most 100,000 layers.*\n  try: length=100000\n"),
        (["blocks", f"builtin:fcn(channels={HUGE})"], 2, r"of memory are free.\n  try: channels=\d+\n"),
        (["spectrum", "builtin:lenet", "--probes", HUGE], 3, r"random vectors .* need .*\n  try: --probes \d+, or"),
        (["spectrum", "builtin:lenet", "--steps", BEYOND], 3, r"Lanczos vectors .* need .*\n  try: --steps \d+, or"),
        (["eigs", "builtin:lenet", "--lowest", HUGE], 3, r"take .*\n  try: --lowest \d+ --highest 5, or"),
        (["forward", "models.py:plain", "--seeds", BEYOND], 3, r"networks need .*\n  try: --seeds \d+\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_numbers_far_out(hessdiag, tmp_path, args, code, answer):
    (tmp_path / "models.py").write_text(MODELS, "utf-8")
    outcome = hessdiag(*args, "--no-progress")
    assert "internal error" not in outcome.err
    assert outcome.code == code, outcome.err
    assert re.search(answer, outcome.err), outcome.err
    assert code == 0 or len(outcome.err.splitlines()) <= 2


MODELS = """
import torch
from torch import nn

x, y = torch.linspace(-1, 1, 12).reshape(4, 3), torch.linspace(0, 1, 8).reshape(4, 2)


class Own(nn.Module):
    def __init__(self, forward, **parameters):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.own = forward
        for name, value in parameters.items():
            setattr(self, name, value)

    def forward(self, inputs):
        return self.own(self, inputs)


class Bare(nn.Module):
    def __init__(self, **parameters):
        super().__init__()
        for name, value in parameters.items():
            setattr(self, name, value)

    def forward(self, inputs):
        return inputs[:, :2] * sum(p.sum() for p in self.parameters()) ** 2


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def changed(change):
    model = plain()
    with torch.no_grad():
        change(model)
    return model


def hidden():
    model = plain()
    model.parameters = None
    return model


MODELS = {
    "no_parameters": lambda: Bare(),
    "all_frozen": lambda: plain().requires_grad_(False),
    "one_parameter": lambda: Bare(p=nn.Parameter(torch.tensor(0.5))),
    "parameter_of_size_zero": lambda: Bare(p=nn.Parameter(torch.zeros(0, 4))),
    "beside_one_of_size_zero": lambda: Bare(p=nn.Parameter(torch.zeros(0, 4)), q=nn.Parameter(torch.ones(2))),
    "complex_parameter": lambda: Bare(p=nn.Parameter(torch.ones(2, dtype=torch.complex64))),
    "integer_parameter": lambda: Own(
        lambda m, x: m.layer(x) + m.i, i=nn.Parameter(torch.ones(2, dtype=torch.long), requires_grad=False)),
    "nan_weights": lambda: changed(lambda m: m[0].weight.fill_(float("nan"))),
    "infinite_weights": lambda: changed(lambda m: m[0].weight.fill_(float("inf"))),
    "huge_weights": lambda: changed(lambda m: [p.mul_(1e30) for p in m.parameters()]),
    "tiny_weights": lambda: changed(lambda m: [p.mul_(1e-40) for p in m.parameters()]),
    "no_output": lambda: Own(lambda m, x: None),
    "text_for_output": lambda: Own(lambda m, x: "text"),
    "detached_output": lambda: Own(lambda m, x: m.layer(x).detach()),
    "empty_output": lambda: Own(lambda m, x: m.layer(x)[:, :0]),
    "raising": lambda: Own(lambda m, x: {}["key"]),
    "half": lambda: plain().half(),
    "brain_half": lambda: plain().bfloat16(),
    "hidden_methods": hidden,
}
BATCHES = {
    "empty_batch": [(x[:0], y[:0])],
    "no_batch": [],
    "one_sample": [(x[:1], y[:1])],
    "nan_inputs": [(x * float("nan"), y)],
    "wrong_shape": [(torch.zeros(4, 7), y)],
    "text_for_targets": [(x, "text")],
}
TARGETS = {
    "targets_out_of_range": torch.tensor([0, 1, 2, 7]),
    "negative_targets": torch.tensor([0, 1, -1, 0]),
    "all_ignored": torch.full((4,), -100),
    "fractions_for_classes": torch.tensor([0.0, 1.0, 0.0, 1.0]),
}
LOSSES = {
    "constant_loss": lambda out, y: (out * 0).sum() + 3.0,
    "loss_apart": lambda out, y: torch.tensor(3.0, requires_grad=True),
    "linear_loss": lambda out, y: out.sum(),
    "loss_per_sample": lambda out, y: (out - y) ** 2,
    "none_for_loss": lambda out, y: None,
    "float_for_loss": lambda out, y: 3.0,
    "detached_loss": lambda out, y: ((out - y) ** 2).mean().detach(),
    "complex_loss": lambda out, y: ((out - y) ** 2).mean().to(torch.complex64),
    "nan_loss": lambda out, y: (out - y).mean() * float("nan"),
    "infinite_loss": lambda out, y: (out - y).square().mean() / 0,
    "raising_loss": lambda out, y: 1 / 0,
}


def case(name):
    if name in MODELS:
        dtype = {"half": torch.float16, "brain_half": torch.bfloat16}.get(name, torch.float32)
        return MODELS[name](), [(x.to(dtype), y.to(dtype))], "mse"
    if name in BATCHES:
        return plain(), BATCHES[name], "mse"
    if name in TARGETS:
        return plain(), [(x, TARGETS[name])], "ce"
    return plain(), [(x, y)], LOSSES[name]
"""
CASES = re.findall(r'^    "(\w+)":', MODELS, re.MULTILINE)
COMMANDS = (("diag-share",), ("blocks",), ("eigs",), ("spectrum",), ("bounds",), ("forward", "--seeds", "3"))


@pytest.mark.parametrize("index", range(len(CASES)), ids=CASES)
@pytest.mark.parametrize("turn", [0, 1])
def test_models_at_the_edge(hessdiag, tmp_path, index, turn):
    (tmp_path / "models.py").write_text(MODELS, "utf-8")
    name, (command, *options) = CASES[index], COMMANDS[(index + 3 * turn + turn) % len(COMMANDS)]
    outcome = hessdiag(command, f"models.py:case(name='{name}')", *options, "--no-progress", "--format", "html")
    assert "internal error" not in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.code in (0, 2, 3, 4), outcome.err
    if outcome.code == 3:
        assert len(re.findall(r"^error: ", outcome.err, re.MULTILINE)) == 1, outcome.err


def test_a_constant_loss_is_said_in_blocks(hessdiag, tmp_path):
    (tmp_path / "models.py").write_text(MODELS, "utf-8")
    outcome = hessdiag("blocks", "models.py:case(name='constant_loss')", "--no-progress")
    assert outcome.code == 0, outcome.err
    assert "The Hessian is exactly zero" in outcome.out
