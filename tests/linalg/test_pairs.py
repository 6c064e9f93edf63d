import numpy as np
import pytest
import torch

from hessdiag.linalg import pairs


def _variances(A, fold_at, monkeypatch, probes=1500):
    monkeypatch.setattr(pairs, "LENGTH", fold_at)
    fold = pairs.Fold.of(len(A), torch.device("cpu"))
    signs = torch.randint(0, 2, (probes, len(A))) * 2.0 - 1
    products = signs.double() @ torch.as_tensor(A)
    seen = [pairs.folded(fold, v.double(), y[None]) for v, y in zip(signs, products, strict=True)]
    squares, traces = pairs.variances(fold, np.stack(seen))
    return float(squares[0]), float(traces[0])


@pytest.mark.parametrize("fold_at", [512, 128])
def test_pairs_of_products_tell_the_variance_of_quadratic_forms(fold_at, monkeypatch):
    """2 (|M|^2 - sum M_ii^2), for v'Av and for |Av|^2 = v'A^2 v; of long vectors after folding."""
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    root = rng.normal(size=(300, 300)) * np.linspace(0.1, 1, 300)
    A = root @ root.T / 300 - 0.3 * np.eye(300)
    exact = [2 * ((M**2).sum() - (M.diagonal() ** 2).sum()) for M in (A @ A, A)]
    assert _variances(A, fold_at, monkeypatch) == pytest.approx(exact, rel=0.1)
