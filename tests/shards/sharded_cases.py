"""Models whose products are compared, sharded and whole; run by ranks, see `test_sharded_products`."""

import atexit
import json
import os
import socket
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.nn.utils import parametrizations

import hessdiag
from hessdiag.machine import capacity, collectives
from hessdiag.machine.ranks import ranks
from hessdiag.shards import exchanges, kept


class Odd(nn.Module):
    """Blocks that take and give tuples, dicts, None and whole numbers; one hands its input through, one is shared."""

    class Block(nn.Module):
        def __init__(self, shared):
            super().__init__()
            self.a, self.shared = nn.Linear(4, 4), shared

        def forward(self, pair, *, options, mask=None):
            x, count = pair
            y = self.shared(torch.tanh(self.a(x))) * options["scale"]
            return (y if mask is None else y * mask, count + 1), {"input": x, "none": None}

    def __init__(self):
        super().__init__()
        shared = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([self.Block(shared) for _ in range(2)])
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        pair, scale = (x, 0), x.new_tensor(1.5)
        for block in self.blocks:
            pair, rest = block(pair, options={"scale": scale}, mask=None if pair[1] else torch.ones_like(x))
        assert pair[1] == 2
        assert rest["none"] is None
        return self.head(pair[0] + rest["input"]).clone()


class InPlace(nn.Module):
    """A block that changes its input, which is used afterwards, and a result that is changed."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x.mul_(1.5).tanh_())

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([self.Block(), self.Block()])
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = x * 1.0
        for block in self.blocks:
            y = block(x)
            y.sigmoid_()
            x = x + y
        return self.head(x)


class Outside(nn.Module):
    """A weight that is used outside its module, one that is handed to another, and a module called twice."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)

        def forward(self, x):
            return torch.tanh(nn.functional.linear(self.b(x), self.a.weight.t()))

    def __init__(self):
        super().__init__()
        self.inner, self.twice, self.head = self.Inner(), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.sigmoid(self.twice(torch.sigmoid(self.twice(self.inner(x))))))


class Rooted(nn.Module):
    """A parameter of the model itself, smaller than the ranks are many."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.3]))
        self.blocks = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x):
        return self.blocks(x) * self.scale.exp()


class Vision(nn.Module):
    """A class token and positions at the top, a container with parameters and blocks, a list of parameters."""

    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.randn(4))
            self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.scales = nn.ParameterList([nn.Parameter(torch.rand(4)) for _ in range(2)])

        def forward(self, x):
            for block, scale in zip(self.blocks, self.scales, strict=True):
                x = x + torch.tanh(block(x + self.shift)) * scale
            return x

    def __init__(self):
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 3, 4))
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.embed, self.stage, self.head = nn.Linear(2, 4), self.Stage(), nn.Linear(4, 3)

    def forward(self, x):
        x = self.embed(x.view(-1, 2, 2))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions.sin()
        return self.head(self.stage(x * self.frozen)[:, 0])


class Unseen(nn.Module):
    """A parameter of the model itself that a block is given, and one that a block finds by itself."""

    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x, scale):
            return torch.tanh(self.a(x) * scale)

    class Finds(nn.Module):
        def __init__(self, home):
            super().__init__()
            self.a, self.home = nn.Linear(4, 4), [home]

        def forward(self, x):
            return torch.tanh(self.a(x) * self.home[0].scale)

    def __init__(self, finds):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))
        self.given, self.head = self.Given(), nn.Linear(4, 3)
        self.finds = nn.ModuleList([self.Finds(self) if finds else nn.Linear(4, 4)])

    def forward(self, x):
        return self.head(self.finds[0](self.given(x, self.scale) + self.shift))


class Scaled(nn.Sequential):
    """A sequence with a parameter of its own, that is passed by."""

    def __init__(self):
        super().__init__(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
        self.scale = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return super().forward(x * self.scale)


class Joined(nn.Module):
    """Small modules beside a large one: two that are joined, and two of a sequence that never runs as one."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm = nn.Linear(4, 5, bias=False), nn.LayerNorm(5)

        def forward(self, x):
            return torch.tanh(self.norm(self.a(x)))

    def __init__(self):
        super().__init__()
        self.pair, self.large = self.Pair(), nn.Linear(5, 20)
        self.passed = nn.Sequential(nn.Linear(20, 2), nn.Linear(2, 3))

    def forward(self, x):
        x = torch.tanh(self.large(self.pair(x)))
        for layer in self.passed:
            x = torch.sin(layer(x))
        return x


class Woven(nn.Module):
    """Results that are views of inputs and of one another, a unit within another, and a weight that two units share."""

    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            y = torch.tanh(self.a(x))
            return x[:, 1:3], y.view(-1, 2, 2).transpose(1, 2), y.T

    class Nest(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.a = inner, nn.Linear(4, 4)

        def forward(self, x):
            return torch.sin(self.a(self.inner(torch.tanh(self.inner(x)))))

    def __init__(self):
        super().__init__()
        inner = nn.Linear(4, 4)
        self.inner, self.blocks = inner, nn.ModuleList([self.Views(), self.Nest(inner)])
        self.left, self.right, self.head = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)
        self.right.weight = self.left.weight

    def forward(self, x):
        part, square, flipped = self.blocks[0](x * 1.0)
        x = square.flatten(1) * part.repeat(1, 2) + flipped.T
        x = torch.tanh(self.left(self.blocks[1](self.inner(x))))
        return self.head(self.right(x))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.norm, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        x = x.view(-1, 1, 4) + torch.linspace(-1, 1, 3, dtype=x.dtype).view(1, 3, 1)
        return self.head(self.norm(x + self.mix(x, x, x)[0]).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.memory(torch.stack([x, x.flip(1), -x], 1))[0][:, -1])


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        for block in self.blocks:
            x = torch.tanh(checkpoint(block, x, use_reentrant=False))
        return self.head(x)


def image():
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)),
        *(nn.Flatten(), nn.Linear(8, 3)),
    ).eval()


def resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(num_channels=1, embedding_size=4, hidden_sizes=[8, 8], depths=[1, 2], num_labels=3)
    return ResNetForImageClassification(config)


def gpt(tied=True, keep=lambda name: True):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 8, "n_layer": 3, "n_head": 2, "n_positions": 8, "vocab_size": 11, "tie_word_embeddings": tied}
    model = GPT2LMHeadModel(
        GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(keep(name))
    return model


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=11, max_position_embeddings=8))


def vectors(model):
    return model, [(torch.randn(3, 4), torch.arange(3))], "ce"  # of four ranks one has no sample


def two_batches(model):
    return model, [(torch.randn(5, 4), torch.arange(5) % 3), (torch.randn(3, 4), torch.arange(3))], "ce"


def images(model):
    return model, [(torch.randn(5, 1, 6, 6), torch.arange(5) % 3)], "ce"


def large_images(model):
    return model, [(torch.randn(4, 1, 32, 32), torch.arange(4) % 3)], "ce"


def next_token(model, batch):
    """As the models compute it, but in float64: theirs is in float32."""
    logits, tokens = model(**batch).logits, batch["input_ids"]
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def texts(model):
    tokens = torch.randint(0, 11, (4, 6))
    return model, [{"input_ids": tokens}], next_token


def own_loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def ignoring(targets, loss):
    """Targets that a mean leaves out: all of one rank's, and of its own loss not among the first."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, [(torch.randn(len(targets), 4), torch.tensor(targets))], loss


CASES = {
    "mlp": lambda: two_batches(
        nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    ),
    "ignored targets": lambda: ignoring([-100, 0, 1], "ce"),
    "own loss, ignored targets": lambda: ignoring([1, 0, 1, 2, -100, -100], own_loss),
    "subset": lambda: (
        *vectors(nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))),
        "2*",
    ),
    "conv and norm": lambda: images(image()),
    "resnet": lambda: large_images(resnet()),
    "odd arguments, a shared module": lambda: vectors(Odd()),
    "in place": lambda: vectors(InPlace()),
    "outside": lambda: vectors(Outside()),
    "root": lambda: vectors(Rooted()),
    "vision": lambda: vectors(Vision()),
    "given a root's": lambda: vectors(Unseen(finds=False)),
    "finds a root's": lambda: vectors(Unseen(finds=True)),
    "sequence with its own": lambda: vectors(Scaled()),
    "views, nests and shared weights": lambda: vectors(Woven()),
    "joined": lambda: vectors(Joined()),
    "attention": lambda: vectors(Attention()),
    "lstm": lambda: vectors(Recurrent()),
    "checkpointed": lambda: vectors(Checkpointed()),
    "weight norm": lambda: vectors(
        nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))
    ),
    "old weight norm": lambda: vectors(
        nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))
    ),
    "gpt-2 tied": lambda: texts(gpt()),
    "gpt-2 untied": lambda: texts(gpt(tied=False)),
    "gpt-2, blocks frozen": lambda: texts(
        gpt(keep=lambda name: not name.startswith(("transformer.h.0.", "transformer.h.1.")))
    ),
    "gpt-2, norms alone": lambda: texts(gpt(keep=lambda name: "ln_" in name)),
    "llama": lambda: texts(llama()),
}


def problem(name):
    torch.manual_seed(0)
    model, data, loss, *layers = CASES[name]()

    def wide(tensor):
        return tensor.double() if tensor.is_floating_point() else tensor

    pairs = [b if isinstance(b, dict) else tuple(map(wide, b)) for b in data]
    how = {"loss": loss} if isinstance(loss, str) else {"objective": loss}
    return hessdiag.Problem(model.double(), data=pairs, layers=layers[0] if layers else None, **how)


def draws(n):
    generator = torch.Generator().manual_seed(7)
    return torch.stack([torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(3)], 1)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def part(layout, vector):
    """This rank's part of a whole vector."""
    numbers = iter(vector.split(1))
    return layout.kept(lambda count: torch.cat([next(numbers) for _ in range(count)]))


def measured(name):
    """Relative errors of everything that a sharded problem gives, and how often pieces were gathered."""
    whole = problem(name)
    before = {key: value.clone() for key, value in whole.model.state_dict().items()}
    operator = hessdiag.HessianOperator(whole, check=False)
    V = draws(whole.n_parameters)
    HV, g, value = operator @ V, operator.gradient(), whole.value()
    spread = hessdiag.sharded(whole)
    H = hessdiag.HessianOperator(spread, check=False)
    local = torch.stack([part(spread.layout, V[:, k]) for k in range(3)], 1)
    found = {
        "value": abs(spread.value() - value) / abs(value),
        "gradient": relative(spread.layout.whole(H.gradient()), g),
    }
    several = H @ local
    found["products"] = relative(spread.layout.whole(several), HV)
    gram = H.spread.summed(local.T @ several)
    found["dots"] = relative(gram, V.T @ HV)
    found["symmetry"] = float((gram - gram.T).norm() / gram.norm())
    padding = [several[place][bounds:] for place, bounds in zip(spread.layout.places, _own(spread.layout), strict=True)]
    found["padding"] = max((float(part.abs().max()) for part in padding if part.numel()), default=0.0)
    found["untouched"] = float(not all(torch.equal(v, before[k]) for k, v in whole.model.state_dict().items()))
    result = {"errors": found, "units": [unit.path for unit in spread.units.every]}
    with keeping(spread, sum(weight.numel() for weight in before.values()) // 20):
        keeps = hessdiag.HessianOperator(spread, check=False)
        found["kept"] = relative(spread.layout.whole(keeps @ local), HV)
    if ranks()[1] == 4:  # what is asked once more takes as long again, and has nothing to do with how many there are
        return result
    one, result["of one"] = counted(lambda: H @ local[:, 0].contiguous())
    found["one"] = relative(spread.layout.whole(one), HV[:, 0])
    again, result["of three"] = counted(lambda: H @ local)
    found["again"] = float((again - several).abs().max())
    return result


@contextmanager
def keeping(spread, few=20):
    """Within, all products are kept, of units however small, and exchanges take few numbers at a time, at least 20.

    A language model in parts of 20 would take 2,000 exchanges, and four ranks half a minute.
    """
    for unit in spread.units.every:
        unit.is_cheap = False
    eager = replace(capacity.CPU, least_kept=0)
    everything = mock.patch.object(capacity, "CPU", eager), mock.patch.object(kept, "ROOM", 2**40)
    with everything[0], everything[1], mock.patch.object(exchanges, "AT_ONCE", max(few, 20)):
        yield


def counted(work):
    """What work gives, and how many exchanges of pieces it took."""
    count = []
    exchange = collectives._exchanged
    collectives._exchanged = lambda *given: count.append(1) or exchange(*given)
    try:
        return work(), len(count)
    finally:
        collectives._exchanged = exchange


def _own(layout):
    from hessdiag.shards.layout import bounds

    return [stop - start for start, stop in (bounds(n, layout.rank, layout.size) for n in layout.counts)]


def run(file):
    """Measure all cases as one rank; the first writes what it found."""
    results = {}
    for case in CASES:
        try:
            results[case] = measured(case)
        except Exception as error:  # of all ranks alike: they go on with the next
            results[case] = {"errors": {"raised": f"{type(error).__name__}: {error}"}}
    if ranks()[0] == 0:
        Path(file).write_text(json.dumps(results))


def start(size, file):
    """Fork ranks, which have imported everything already."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            meeting = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in meeting.items()}
            try:
                run(file)
                atexit._run_exitfuncs()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.llama.modeling_llama
    import transformers.models.resnet.modeling_resnet  # noqa: F401

    for number in (1, 2, 4):
        start(number, f"{sys.argv[1]}/{number}.json")
