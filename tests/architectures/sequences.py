"""Recurrent networks, embeddings and attention; time first, padding, tied tables."""

import warnings

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.case import Case, Lambda, Net, case, classes, cut, normal
from tests.architectures.convolutions import mean_ce, settled
from tests.architectures.feedforward import of_output


@case
def elman_batch_first():
    x, y = normal(5, 4, 2), normal(5, 1)
    model = Net(
        lambda m, x: m.head(m.rnn(x)[0][:, -1]), rnn=nn.RNN(2, 3, batch_first=True), head=nn.Linear(3, 1)
    ).double()
    return Case(model, cut(x, y, 2, 3), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def gated_recurrent_time_major():
    """torch's default layout: the first dimension is time, and differs between batches."""
    x1, x2, y1, y2 = normal(7, 1, 2), normal(2, 4, 2), classes(2, 1), classes(2, 4)
    model = Net(lambda m, x: m.head(m.rnn(x)[0][-1]), rnn=nn.GRU(2, 3), head=nn.Linear(3, 2)).double()
    received = lambda m: [torch.cat([m(x1), m(x2)])]
    return Case(
        model,
        [(x1, y1), (x2, y2)],
        loss="ce",
        weights=[0.2, 0.8],
        received=received,
        value=mean_ce(torch.cat([y1, y2])),
    )


@case
def time_major_tagging():
    """A target at every step (time, batch), flattened by the user's loss, which is a mean over steps and sequences."""
    x1, x2, y1, y2 = normal(6, 2, 2), normal(2, 3, 2), classes(3, 6, 2), classes(3, 2, 3)
    model = Net(lambda m, x: m.head(m.rnn(x)[0]), rnn=nn.GRU(2, 3), head=nn.Linear(3, 3)).double()
    data = [(x1, y1.flatten()), (x2, y2.flatten())]
    received = lambda m: [torch.cat([m(x1).flatten(0, 1), m(x2).flatten(0, 1)])]
    loss = lambda z, t: F.cross_entropy(z.flatten(0, 1), t)
    value = mean_ce(torch.cat([y1.flatten(), y2.flatten()]))
    return Case(model, data, loss=loss, weights=[12 / 18, 6 / 18], received=received, value=value)


@case
def long_short_term_memory_both_ways():
    x, y = normal(3, 3, 2), classes(2, 3)
    model = Net(
        lambda m, x: m.head(m.rnn(x)[0].mean(1)),
        rnn=nn.LSTM(2, 2, batch_first=True, bidirectional=True),
        head=nn.Linear(4, 2),
    ).double()
    return Case(model, [(x, y)], loss="ce", **of_output(x, mean_ce(y)))


@case
def packed_sequences():
    x, lengths, y = normal(4, 4, 2), torch.tensor([4, 1, 3, 2]), normal(4, 1)

    def forward(m, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        h, _ = pad_packed_sequence(m.rnn(packed)[0], batch_first=True)
        return m.head(h[torch.arange(len(x)), lengths - 1])

    model = Net(forward, rnn=nn.GRU(2, 3, batch_first=True), head=nn.Linear(3, 1)).double()
    data = [((x[:1], lengths[:1]), y[:1]), ((x[1:], lengths[1:]), y[1:])]
    return Case(model, data, loss="mse", received=lambda m: [m(x, lengths)], value=lambda z: (z - y).square().mean())


@case
def embedding_with_padding_and_position():
    """The padding row gets no gradient, by torch's rule, although the output depends on it."""
    ids, y = classes(6, 4, 3), classes(2, 4)
    table = nn.Embedding(6, 3, padding_idx=0)
    model = Net(
        lambda m, ids: m.head(torch.tanh(m.table(ids) + m.position).mean(1)),
        table=table,
        position=normal(3, 3),
        head=nn.Linear(3, 2),
    ).double()
    return Case(
        model,
        cut(ids, y, 1, 3),
        loss="ce",
        oracle="double backward",
        weights=[0.25, 0.75],
        **of_output(ids, mean_ce(y)),
    )


def _bag(mode):
    """torch's bag has no second derivative in some modes, so that its function is written with an index here."""
    ids, y = classes(7, 9, 3), classes(3, 9)
    model = nn.Sequential(nn.EmbeddingBag(9, 3, mode=mode), nn.Tanh(), nn.Linear(3, 3)).double()
    join = {"sum": lambda h: h.sum(1), "mean": lambda h: h.mean(1), "max": lambda h: h.amax(1)}[mode]
    received = lambda m: [m[2](torch.tanh(join(m[0].weight[ids])))]
    return Case(
        model,
        cut(ids, y, 4, 5),
        loss="ce",
        weights=[4 / 9, 5 / 9],
        oracle="double backward",
        received=received,
        value=mean_ce(y),
    )


@case
def embedding_bag_sum():
    return _bag("sum")


@case
def embedding_bag_mean():
    """Two rows of the table are never touched."""
    return _bag("mean")


@case
def embedding_bag_max():
    return _bag("max")


@case
def language_model_with_a_tied_table():
    """Logits (N, T, V) with targets (N, T), some ignored, in batches of different lengths."""
    ids1, ids2 = classes(5, 2, 4), classes(5, 3, 2)
    y1, y2 = ids1.roll(-1, 1), ids2.roll(-1, 1)
    y1[:, -1], y2[:, -1] = -100, -100
    model = Net(
        lambda m, ids: F.linear(torch.tanh(m.mix(m.table(ids).cumsum(1))), m.table.weight),
        table=nn.Embedding(5, 3),
        mix=nn.Linear(3, 3),
    ).double()
    model.head = nn.Linear(3, 5, bias=False)
    model.head.weight = model.table.weight

    def value(z):
        y = torch.cat([y1[:, :3].flatten(), y2[:, :1].flatten()])
        return -z.log_softmax(1)[torch.arange(9), y].mean()

    received = lambda m: [torch.cat([m(ids1)[:, :3].flatten(0, 1), m(ids2)[:, :1].flatten(0, 1)])]
    data = [(ids1, y1), (ids2, y2)]
    return Case(model, data, loss="ce", weights=[6 / 9, 3 / 9], received=received, value=value)


@case
def multi_head_attention():
    x, y = normal(3, 4, 4), normal(3, 4, 4)
    model = Net(
        lambda m, x: m.attention(x, x, x, need_weights=False)[0],
        attention=nn.MultiheadAttention(4, 2, batch_first=True),
    ).double()
    return Case(model, cut(x, y, 1, 2), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def causal_attention_by_torchs_function():
    x, y = normal(3, 4, 4), classes(3, 3)

    def forward(m, x):
        q, k, v = m.qkv(x).chunk(3, -1)
        return m.head(F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, -1])

    model = Net(forward, qkv=nn.Linear(4, 6, bias=False), head=nn.Linear(2, 3)).double()
    return Case(model, [(x, y)], loss="ce", **of_output(x, mean_ce(y)))


@case
def transformer_encoder_with_padding():
    ids, y = classes(6, 3, 4), classes(2, 3)
    ids[0, 2:], ids[1, 3:] = 0, 0
    layer = nn.TransformerEncoderLayer(3, 1, 3, batch_first=True, dropout=0.2)

    def forward(m, ids):
        padded = ids == 0
        h = m.encoder(m.table(ids), src_key_padding_mask=padded)
        return m.head((h * ~padded[..., None]).sum(1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = nn.TransformerEncoder(layer, 1)
    model = settled(Net(forward, table=nn.Embedding(6, 3), encoder=encoder, head=nn.Linear(3, 2)).double())
    return Case(
        model,
        cut(ids, y, 1, 2),
        loss="ce",
        oracle="double backward",
        weights=[1 / 3, 2 / 3],
        **of_output(ids, mean_ce(y)),
    )


@case
def decoder_with_cross_attention():
    x, memory, y = normal(2, 3, 3), normal(2, 4, 3), normal(2, 3, 3)
    layer = nn.TransformerDecoderLayer(3, 1, 2, batch_first=True, activation="gelu", norm_first=True)
    model = settled(
        Net(
            lambda m, x, memory: m.layer(
                x, memory, tgt_is_causal=True, tgt_mask=nn.Transformer.generate_square_subsequent_mask(3).double()
            ),
            layer=layer,
        ).double()
    )
    data = [((x[:1], memory[:1]), y[:1]), ((x[1:], memory[1:]), y[1:])]
    return Case(model, data, loss="mse", received=lambda m: [m(x, memory)], value=lambda z: (z - y).square().mean())


@case
def tiny_gpt2():
    """Its mean is over next tokens, one fewer than tokens; and its loss is computed in float32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=5,
        n_positions=4,
        n_embd=3,
        n_layer=1,
        n_head=1,
        n_inner=3,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = settled(GPT2LMHeadModel(config).double())
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.4)
    parts = [classes(5, 1, 4), classes(5, 2, 2)]

    def received(m):
        return [torch.cat([m(ids).logits[:, :-1].flatten(0, 1) for ids in parts])]

    value = mean_ce(torch.cat([ids[:, 1:].flatten() for ids in parts]))
    data = [{"input_ids": ids, "labels": ids} for ids in parts]
    weights = [3 / 5, 2 / 5]
    return Case(model, data, loss="output", weights=weights, tolerance=1e-6, received=received, value=value)


@case
def model_that_returns_its_own_loss():
    """A tagger with ignored labels: what its mean is over is not to be seen from outside, but from its labels."""
    ids, labels = [classes(5, 2, 3), classes(5, 1, 4)], [classes(3, 2, 3), classes(3, 1, 4)]
    labels[0][0] = -100

    def forward(m, tokens, labels=None):
        logits = m.head(torch.tanh(m.table(tokens)))
        return {"logits": logits, "loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten())}

    model = Net(forward, table=nn.Embedding(5, 3), head=nn.Linear(3, 3)).double()

    def received(m):
        logits = [m.head(torch.tanh(m.table(x)))[y != -100] for x, y in zip(ids, labels, strict=True)]
        return [torch.cat(logits)]

    value = mean_ce(torch.cat([y[y != -100] for y in labels]))
    data = [{"tokens": x, "labels": y} for x, y in zip(ids, labels, strict=True)]
    return Case(model, data, loss="output", weights=[3 / 7, 4 / 7], received=received, value=value)


@case
def tiny_bert_classifier():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=6,
        hidden_size=3,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=3,
        max_position_embeddings=4,
        type_vocab_size=1,
        num_labels=3,
    )
    model = BertForSequenceClassification(config).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.4)
    ids, y = classes(6, 3, 4), classes(3, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]])
    data = [{"input_ids": ids[s], "attention_mask": mask[s], "labels": y[s]} for s in (slice(0, 1), slice(1, 3))]
    received = lambda m: [m(input_ids=ids, attention_mask=mask).logits]
    return Case(
        model, data, loss="ce", oracle="double backward", weights=[1 / 3, 2 / 3], received=received, value=mean_ce(y)
    )


@case
def connectionist_temporal_classification():
    """No second derivative of the loss: products are differences, and no Gauss-Newton matrix is to be had."""
    x, y = normal(3, 5, 2), torch.tensor([[1, 2], [2, 1], [1, 1]])
    model = nn.Sequential(
        nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3), nn.LogSoftmax(2), Lambda(lambda z: z.transpose(0, 1))
    ).double()

    def loss(z, t):
        return F.ctc_loss(z, t, torch.full((len(t),), 5), torch.full((len(t),), 2))

    return Case(model, [(x, y)], loss=loss, tolerance=1e-7, value=lambda m: loss(m(x), y))


@case
def state_space_scan():
    """A diagonal linear recurrence with input-dependent steps."""
    x, y = normal(4, 5, 2), normal(4, 1)

    def forward(m, x):
        h, step = torch.zeros(len(x), 3, dtype=x.dtype), F.softplus(m.step(x))
        for t in range(x.shape[1]):
            h = (-step[:, t] * m.decay.exp()).exp() * h + step[:, t] * m.into(x[:, t])
        return m.out(h)

    model = Net(
        forward, step=nn.Linear(2, 3), decay=normal(3), into=nn.Linear(2, 3, bias=False), out=nn.Linear(3, 1)
    ).double()
    return Case(model, cut(x, y, 1, 3), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))
