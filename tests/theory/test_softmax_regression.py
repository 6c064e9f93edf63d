"""Softmax regression at W = 0: its Hessian as autograd has it, against ratios in closed form."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from hessdiag.errors import SpecError
from hessdiag.theory.softmax_regression import class_blocks


@pytest.mark.parametrize(("classes", "inputs", "samples"), [(2, 3, 1), (2, 5, 20), (10, 4, 7), (100, 2, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_ratios_are_those_of_autograd(classes, inputs, samples, bias):
    rng = np.random.default_rng(classes + inputs)
    x = torch.from_numpy(rng.normal(1, 3, (samples, inputs)))
    x = torch.cat([x, torch.ones(samples, 1)], 1) if bias else x
    y = torch.from_numpy(rng.integers(0, classes, samples))

    def loss(w):
        return F.cross_entropy(x @ w.reshape(classes, -1).T, y)

    dense = torch.func.hessian(loss)(torch.zeros(classes * x.shape[1], dtype=torch.float64)).numpy()
    blocks = dense.reshape(classes, x.shape[1], classes, x.shape[1])
    norms = np.sqrt((blocks**2).sum((1, 3)))
    own = np.zeros_like(blocks)
    for number in range(classes):
        own[number, :, number] = blocks[number, :, number]
    law = class_blocks(classes)
    assert law.frobenius_share == pytest.approx((own**2).sum() / (dense**2).sum(), rel=1e-12)
    assert law.absolute_share == pytest.approx(abs(own).sum() / abs(dense).sum(), rel=1e-12)
    assert law.relative_error == pytest.approx(np.linalg.norm(blocks - own) / np.linalg.norm(dense), rel=1e-12)
    assert norms[0, 1] / norms[1, 1] == pytest.approx(law.coupling, rel=1e-12)
    top = np.linalg.eigvalsh(own.reshape(dense.shape))[-1] / np.linalg.eigvalsh(dense)[-1]
    assert law.lambda_max == pytest.approx(top, rel=1e-9)


def test_one_class_is_none():
    with pytest.raises(SpecError, match="at least two classes, not 1"):
        class_blocks(1)
