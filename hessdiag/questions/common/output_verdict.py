"""What is said of a Gauss-Newton matrix, whatever the question: whether it is right, and why it may be zero."""

from collections.abc import Mapping

from hessdiag.curvature.point.words import AT_KINK
from hessdiag.numbers import number
from hessdiag.questions.common.result import Finding, ModelSubject

FINEST = 1e-5  # tolerance in float64

_CURES = {
    "nll": "--loss nll, which takes log-probabilities for logits; or logits and --loss ce; --operator fisher, which is not zero",
    "kl_div": "logits instead of log-probabilities, and cross-entropy with the other distribution as its target",
    "l1": "--loss mse, or torch.nn:HuberLoss, which curve; --operator hessian for what the model itself curves",
}
_OTHER_CURE = (
    "logits and --loss ce, if the outputs are log-probabilities; --operator hessian for all the curvature there is"
)


def check_findings(checks: Mapping[str, float | None], tolerance: float | None) -> list[Finding]:
    """Findings for the comparison of a Gauss-Newton product with the linearized model, where it failed or is missing."""
    if "ggn_quadratic_form" not in checks:
        return []
    error, tolerance = checks["ggn_quadratic_form"], tolerance or 0.0
    if error is None:
        return [
            Finding(
                "note",
                "The Gauss-Newton products could not be checked against the linearized model.",
                "the model cannot be copied",
                "give the model as a function that builds it",
            )
        ]
    if error <= tolerance:
        return []
    wider = "--dtype float64; if that does not mend it, " if tolerance > FINEST else ""
    return [
        Finding(
            "bad",
            "The Gauss-Newton products are not the loss's curvature along the linearized model: they cannot be trusted.",
            f"relative error of v'Gv {number(error, 2)}, allowed {number(tolerance, 1)}",
            f"{wider}a model and a loss that detach nothing and draw no random numbers; at a kink of the loss, such as a residual of exactly zero, there is no such matrix",
        )
    ]


def elsewhere_findings(uses_parameters: bool | None) -> list[Finding]:
    """What a Gauss-Newton matrix leaves out, where the loss does not see the parameters through the output alone."""
    if not uses_parameters:
        return []
    return [
        Finding(
            "note",
            "The loss also uses parameters by another way than the model's output: the Gauss-Newton matrix leaves that part out.",
            "with all tensors of the output cut off from the parameters, the loss still depends on some of them, as a penalty on weights does",
            "check that this is meant; the Hessian and the residual hold it",
        )
    ]


def kink_findings(outputs_at_kink: bool | None) -> list[Finding]:
    """What a matrix of slopes is where the outputs have a kink."""
    if not outputs_at_kink:
        return []
    return [
        Finding(
            "warn",
            f"{AT_KINK[0].upper()}{AT_KINK[1:]}.",
            "differences of outputs agree with its slopes with all choices (of maxima, signs and gates) held as they are, and not without",
            "hessdiag blocks, which says where; to leave it, biases of 0.01 for exact zeros and last gains of 1e-3 for zero ones",
        )
    ]


def linear_finding(problem: ModelSubject) -> Finding:
    """Why a Gauss-Newton matrix is zero though the outputs depend on the parameters."""
    kind = problem.loss_kind
    between = " between its kinks" if kind == "l1" else ""
    return Finding(
        "warn",
        f"The Gauss-Newton matrix is zero because the loss {problem.loss} is linear in what it receives{between}.",
        "its second derivative in the output vanishes there, as that of every likelihood of log-probabilities does; the outputs do depend on the parameters",
        _CURES.get(kind or "", _OTHER_CURE),
    )
