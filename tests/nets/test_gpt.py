"""The small GPT: against torch's own transformer layers, by the laws of its weights, and what its language says."""

import math

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import SpecError
from hessdiag.nets.gpt import GPT, NORMS, gpt, sentences
from hessdiag.problem.load import ProblemRequest, load_problem

TINY = {"layers": 2, "width": 12, "heads": 3, "vocabulary": 11, "context": 7}
F64 = torch.float64


def by_torch(model, layers, heads):
    """The same function of torch's own encoder layers."""
    width = model.token.embedding_dim
    stack = [
        nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0, activation="gelu", batch_first=True, norm_first=True, dtype=F64
        ).eval()
        for _ in range(layers)
    ]
    with torch.no_grad():
        for theirs, ours in zip(stack, model.blocks, strict=True):
            projections = ours.attention.q_proj, ours.attention.k_proj, ours.attention.v_proj
            theirs.self_attn.in_proj_weight.copy_(torch.cat([layer.weight for layer in projections]))
            theirs.self_attn.in_proj_bias.copy_(torch.cat([layer.bias for layer in projections]))
            pairs = [
                (theirs.self_attn.out_proj, ours.attention.out_proj),
                (theirs.linear1, ours.up),
                (theirs.linear2, ours.down),
                (theirs.norm1, ours.attention_norm),
                (theirs.norm2, ours.mlp_norm),
            ]
            for to, taken in pairs:
                to.load_state_dict(taken.state_dict())

    def logits(tokens):
        x = model.token(tokens) + model.place.weight[: tokens.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=F64)
        for layer in stack:
            x = layer(x, src_mask=mask)
        return nn.functional.layer_norm(x, (width,), model.norm.weight, model.norm.bias) @ model.head.weight.T

    return logits


def test_logits_are_those_of_torchs_transformer_layers():
    model = GPT(**TINY, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=F64, generator=torch.Generator().manual_seed(3)))
    tokens = torch.randint(11, (5, 7), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(tokens), by_torch(model, 2, 3)(tokens), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_a_token_changes_nothing_before_it_and_products_with_its_hessian_are_slopes_of_gradients(norm):
    spec = f"builtin:gpt(layers=1, width=8, heads=2, vocabulary=16, context=6, norm='{norm}')"
    problem = load_problem(ProblemRequest(spec, device="cpu"))
    tokens, _ = problem.data[0]
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 16
    before, after = problem.model(tokens), problem.model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amin(dim=(0, 2)).min() > 0
    checks = hessdiag.eigs(problem, lowest=0, highest=1).checks
    assert 0 < checks["hvp_finite_difference"] < 1e-7


def test_weights_have_the_variances_that_are_promised():
    model = GPT(layers=3, width=64, seed=0)
    block = model.blocks[1]
    expected = {
        model.token: 1,
        model.place: 1,
        model.head: 1 / 64,
        block.attention.q_proj: 1 / 64,
        block.attention.v_proj: 1 / 64,
        block.attention.out_proj: 1 / (64 * 6),
        block.up: 1 / 64,
        block.down: 1 / (256 * 6),
    }
    for layer, variance in expected.items():
        assert layer.weight.detach().var().item() == pytest.approx(
            variance, rel=5 * math.sqrt(2 / layer.weight.numel())
        )
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 3 * (6 + 2) + 1
    assert not any(parameter.any() for parameter in biases)
    assert "head.bias" not in dict(model.named_parameters())


def test_a_float32_network_is_the_float64_one_rounded_and_global_randomness_is_left_alone():
    state = torch.get_rng_state()
    wide, narrow = GPT(**TINY, seed=5), GPT(**TINY, seed=5, dtype=torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(wide.parameters(), narrow.parameters(), strict=True):
        assert torch.equal(one.float(), other)
        assert other.requires_grad


def test_sentences_follow_the_chances_of_their_language():
    text = sentences(400, 101, vocabulary=50, seed=2)
    assert (int(text.min()), int(text.max())) == (0, 49)
    follows = torch.zeros(50, 50)
    one, two, three = text[:, :-2].flatten(), text[:, 1:-1].flatten(), text[:, 2:].flatten()
    follows.index_put_((two, three), torch.ones(len(two)), accumulate=True)
    skips = torch.zeros(50, 50)
    skips.index_put_((one, three), torch.ones(len(two)), accumulate=True)
    best = (follows / follows.sum(1, keepdim=True)).max(1).values.mean()  # half of 8/15 and what chance adds
    assert 0.25 < float(best) < 0.40
    assert float((skips / skips.sum(1, keepdim=True)).max(1).values.mean()) == pytest.approx(float(best), abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        ("width=30", "4 heads cannot share a width of 30", "heads=3"),
        ("layers=0", "layers of a GPT must be at least 1, not 0", "layers=1"),
        ("norm='batch'", "unknown norm 'batch'", "norm='layer'"),
        ("sequences=0", "there is at least one sequence", "sequences=8"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(arguments, says, hint):
    with pytest.raises(SpecError, match=says) as caught:
        load_problem(ProblemRequest(f"builtin:gpt({arguments})"))
    assert caught.value.hint == hint


def test_gradient_descent_learns_its_batch():
    task = gpt(layers=1, width=16, heads=2, vocabulary=32, context=16)
    model, (x, y) = task["model"], task["data"]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(32), abs=1)
    assert losses[-1] < 1
