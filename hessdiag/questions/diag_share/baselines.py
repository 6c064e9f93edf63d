"""Diagonal shares that random matrices and least squares have at a problem's size, to hold a measured one against."""

from hessdiag.problem.batches import batch as batches
from hessdiag.problem.problem import Problem
from hessdiag.questions.diag_share.result import Baselines
from hessdiag.theory import wigner_ols

LARGEST_SIGNED = 8192  # features; the share of X'X of signed data takes time quadratic in them


def baselines(problem: Problem) -> Baselines:
    """The random-matrix and least-squares baselines of a problem (Kohler, Adolphs and Lucchi, Appendix D).

    >>> import torch
    >>> model = torch.nn.Linear(10, 1, bias=False)
    >>> round(baselines(Problem(model, data=[(torch.randn(8, 10), torch.randn(8, 1))], loss="mse")).wigner, 6)
    0.1
    """
    n, d = problem.n_targets, problem.n_parameters
    outputs = problem.n_outputs
    X = batches.flat_inputs(problem.data)
    cheap = X is not None and (X.shape[1] <= LARGEST_SIGNED or bool((X >= 0).all()))
    data = X.numpy() if X is not None and X.shape[1] > 1 and cheap else None
    mean, stdev = wigner_ols.wigner_share_mean(d)
    columns = None if data is None else wigner_ols.ols_share_columns(len(data), data.mean(0), (data**2).mean(0))
    return Baselines(
        wigner=wigner_ols.wigner_share(d),
        wigner_mean=mean,
        wigner_stdev=stdev,
        ols_gaussian=wigner_ols.ols_share_gaussian(n, d),
        ols_clt=wigner_ols.ols_share_clt(n, d),
        n=n,
        d=d,
        ols_gaussian_outputs=wigner_ols.ols_share_gaussian(n * outputs, d) if outputs else None,
        ols_clt_outputs=wigner_ols.ols_share_clt(n * outputs, d) if outputs else None,
        n_outputs=n * outputs if outputs else None,
        ols_data=wigner_ols.data_share(data) if data is not None else None,
        ols_data_d=data.shape[1] if data is not None else None,
        ols_data_gaussian=wigner_ols.ols_share_gaussian(*data.shape) if data is not None else None,
        ols_columns=columns,
    )
