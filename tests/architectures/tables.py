"""Tables of which the batches touch few rows, in the ways in which models look into them."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.architectures.case import Case, Net, case, classes, cut, normal
from tests.architectures.convolutions import mean_ce
from tests.architectures.feedforward import of_output

ROWS = 60


def ids(*shape):
    """Few rows of the table, spread over it."""
    return 5 * classes(9, *shape) + 3


def table_case(forward, x, y, *sizes, **parts):
    model = Net(forward, table=nn.Embedding(ROWS, 2), head=nn.Linear(2, 3), **parts).double()
    return Case(model, cut(x, y, *sizes), loss="ce", oracle="double backward", **of_output(x, mean_ce(y)))


@case
def batches_that_touch_different_rows():
    x, y = ids(8, 2).sort(0).values, classes(3, 8)
    return table_case(lambda m, x: m.head(torch.tanh(m.table(x)).mean(1)), x, y, 3, 5)


@case
def bag_with_weights_of_the_rows():
    """torch's bag has no second derivative then: products are differences."""
    x, y = ids(8, 2), classes(3, 8)
    model = Net(
        lambda m, x: m.head(torch.tanh(m.bag(x, per_sample_weights=m.scale[None].expand(len(x), 2)))),
        bag=nn.EmbeddingBag(ROWS, 2, mode="sum"),
        scale=normal(2),
        head=nn.Linear(2, 3),
    ).double()
    received = lambda m: [m.head(torch.tanh((m.bag.weight[x] * m.scale[:, None]).sum(1)))]
    return Case(
        model, cut(x, y, 3, 5), loss="ce", oracle="double backward", tolerance=1e-7, received=received, value=mean_ce(y)
    )


@case
def rows_that_are_computed_in_the_model():
    """The model hashes its inputs, and looks twice into the same table."""
    x, y = classes(5, 8, 2), classes(3, 8)
    forward = lambda m, x: m.head(torch.tanh(m.table(x * 29 % ROWS).sum(1)) * m.table((x.sum(1) * 7 + 1) % ROWS))
    return table_case(forward, x, y, 3, 5)


@case
def rows_by_plain_indexing():
    x, y = ids(8), classes(3, 8)
    return table_case(lambda m, x: m.head(torch.sin(m.table.weight[x])), x, y, 3, 5)


@case
def rows_by_gather_and_index_select():
    x, y = ids(8), classes(3, 8)

    def forward(m, x):
        first = m.table.weight.gather(0, x[:, None].expand(-1, 2))
        return m.head(torch.sin(first) * m.table.weight.index_select(0, (x + 1) % ROWS))

    return table_case(forward, x, y, 3, 5)


@case
def table_that_is_read_whole_besides():
    """The mean of all rows is used too: no row is untouched."""
    x, y = ids(8), classes(3, 8)
    return table_case(lambda m, x: m.head(torch.tanh(m.table(x) + m.table.weight.mean(0))), x, y, 3, 5)


@case
def table_with_decay():
    """The objective decays every row: untouched by the data, and not zero."""
    x, y = ids(8), classes(3, 8)
    model = nn.Sequential(nn.Embedding(ROWS, 2), nn.Tanh(), nn.Linear(2, 3)).double()

    def objective(m, batch):
        return F.cross_entropy(m(batch[0]), batch[1]) + 0.01 * m[0].weight.square().sum()

    return Case(
        model, cut(x, y, 3, 5), objective=objective, oracle="double backward", value=lambda m: objective(m, (x, y))
    )


@case
def table_that_is_also_the_head():
    x, y = ids(8), ids(8)
    model = nn.Sequential(nn.Embedding(ROWS, 2), nn.Tanh(), nn.Linear(2, 2), nn.Linear(2, ROWS, bias=False)).double()
    model[3].weight = model[0].weight
    return Case(model, cut(x, y, 3, 5), loss="ce", oracle="double backward", **of_output(x, mean_ce(y)))


@case
def two_tables_and_a_padding_row():
    users, items, y = ids(8), ids(8).flip(0), normal(8)
    items[2] = 0
    model = Net(
        lambda m, u, i: (torch.tanh(m.users(u)) * m.items(i)).sum(1) + m.bias(i)[:, 0],
        users=nn.Embedding(ROWS, 2),
        items=nn.Embedding(ROWS, 2, padding_idx=0),
        bias=nn.Embedding(ROWS, 1),
    ).double()
    data = [((users[:3], items[:3]), y[:3]), ((users[3:], items[3:]), y[3:])]
    value = lambda z: (z - y).square().mean()
    return Case(model, data, loss="mse", oracle="double backward", received=lambda m: [m(users, items)], value=value)
