"""Up to which curvature an optimizer is stable on a quadratic: constants c of "learning rate times curvature < c".

On the loss h w^2 / 2 an optimizer with a fixed preconditioner p is a linear recursion in w and its momentum. Its
largest root passes -1 where `lr h / p` reaches a constant of the method alone, and from there on w grows with
alternating signs. In many dimensions the curvature is the largest eigenvalue of P^{-1/2} H P^{-1/2} (Cohen et al.,
arXiv 2103.00065 for gradient descent and its momenta; arXiv 2207.14484 for adaptive optimizers, where P is the one of
the moment).

Weight decay: one that is *coupled* is part of the gradient, and adds `decay` to the curvature; the constants are the
same. One that is *decoupled* shrinks the weights by `lr decay` in each step beside the gradient, and takes that much
off the 2 that all constants begin with.
"""

from typing import Literal

Family = Literal["descent", "averaged", "nesterov-averaged"]

FAMILIES: dict[str, Family] = {
    "sgd": "descent", "asgd": "descent", "rmsprop": "descent", "adagrad": "descent", "adadelta": "descent",
    "adam": "averaged", "adamw": "averaged", "adamax": "averaged", "radam": "averaged",
    "nadam": "nesterov-averaged",
}  # fmt: skip
WHY_NOT = {
    "muon": "its steps have one size whatever the gradient's: its threshold is none of an eigenvalue",
    "lion": "its steps are signs, of one size whatever the gradient's: they never settle, and no curvature decides",
    "rprop": "its steps are signs, whose sizes follow their own history",
    "lbfgs": "it looks for the length of its steps itself",
    "adafactor": "its steps are clipped, and relative to the weights' size",
    "soap": "it preconditions in a basis of its own, and not entry by entry",
    "shampoo": "it preconditions whole matrices, and not entry by entry",
}
PLAIN = ("sgd", "asgd")  # which divide by nothing
ADAPTIVE = tuple(kind for kind in FAMILIES if kind not in PLAIN)  # which divide by averages of what gradients were
EDGE = 0.05  # of a ratio to a threshold, on both sides of 1: training at the edge of stability is seen within it


def threshold(
    kind: str,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    dampening: float = 0.0,
    beta1: float = 0.0,
    look_ahead: float | None = None,
    decay: float = 0.0,
) -> float | None:
    """The constant c: on a quadratic, steps shrink if `lr * curvature < c`, and grow if it is above.

    With d = `decay`, for curvature in the optimizer's own metric (after bias correction has faded):

    - gradient descent, RMSprop, Adagrad: 2 - d
    - heavy ball b, dampening q: (2 - d) (1 + b) / (1 - q)
    - Nesterov b: (2 - d) (1 + b) / (1 + 2b), which is less than without momentum
    - Adam and its kin: (2 - d) (1 + b1) / (1 - b1), 38 for b1 = 0.9
    - NAdam, with look-ahead m: (2 - d) (1 + b1) / (1 + b1 - 2 m b1)

    Args:
        kind: The optimizer's class in small letters, as "adamw".
        momentum: b of `torch.optim.SGD` and `RMSprop`.
        nesterov: Whether SGD takes its momentum ahead.
        dampening: q of SGD.
        beta1: b1 of Adam's kin.
        look_ahead: m of NAdam; by default `beta1`, which it approaches over thousands of steps.
        decay: Learning rate times *decoupled* weight decay; 0 for a coupled one, which is part of the curvature.

    Returns:
        c; `None` for an optimizer whose threshold is none of an eigenvalue, or not known: `why_not` says why.

    Raises:
        ValueError: if momenta are not in [0, 1), or the decay not in [0, 2).

    Example:
        >>> threshold("sgd"), threshold("sgd", momentum=0.9), round(threshold("adam", beta1=0.9), 9)
        (2.0, 3.8, 38.0)
        >>> round(threshold("sgd", momentum=0.9, nesterov=True), 4), threshold("muon") is None
        (1.3571, True)
    """
    ahead = beta1 if look_ahead is None else look_ahead
    if not all(0 <= one < 1 for one in (momentum, dampening, beta1, ahead)) or not 0 <= decay < 2:
        raise ValueError("momenta lie in [0, 1), and learning rate times weight decay in [0, 2)")
    family = FAMILIES.get(kind)
    if family is None:
        return None
    shrink = 2 - decay
    if family == "averaged":
        return shrink * (1 + beta1) / (1 - beta1)
    if family == "nesterov-averaged":
        return shrink * (1 + beta1) / (1 + beta1 - 2 * ahead * beta1)
    if nesterov:
        return shrink * (1 + momentum) / (1 + 2 * momentum)
    return shrink * (1 + momentum) / (1 - dampening)


def why_not(kind: str) -> str:
    """Why no threshold is derived for an optimizer, as the end of a sentence; empty where one is.

    >>> why_not("adam"), why_not("LAMB".lower())
    ('', 'no threshold is derived for it')
    """
    return "" if kind in FAMILIES else WHY_NOT.get(kind, "no threshold is derived for it")
