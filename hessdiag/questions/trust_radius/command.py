"""`hessdiag trust-radius MODEL`: how far from here the Hessian can be believed."""

from typing import TYPE_CHECKING

import click

from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.options import Target, model_options, output_options
from hessdiag.cli.output import Output

if TYPE_CHECKING:
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common.runs.progress import Progress
    from hessdiag.questions.trust_radius.result import TrustRadius


@click.command("trust-radius", cls=Command)
@model_options
@click.option(
    "--norm",
    "norms",
    multiple=True,
    type=click.Choice(["uniform", "rmsprop", "adagrad"]),
    help="Metric of steps; repeatable. Default: all three.",
)
@output_options
def command(targets: tuple[Target, ...], norms: tuple[str, ...], out: Output) -> int:
    """How far from here can the Hessian be believed? Steps of its quadratic model, and what the loss does along them.

    At radii from 1e-5 to 0.1, root mean squares of steps, the model's decrease is compared with the loss's own: once as
    the network is, and once with every ReLU, max-pooling unit and their kin held to its side. The difference is the
    curvature that autograd's Hessian leaves out.

    \b
    hessdiag trust-radius model.pt --data batch.npz --loss ce
    hessdiag trust-radius builtin:mlp --norm uniform -o trust.html
    """  # noqa: D301

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "TrustRadius":
        from hessdiag.questions.trust_radius.measure import NORMS, trust_radius

        return trust_radius(problem, norms=norms or NORMS, seed=seed, progress=progress)

    def unmeasured(problem: "Problem") -> "TrustRadius":
        from hessdiag.questions.trust_radius import measure as trust

        return trust.unmeasured(problem)

    return answer_of_model(targets, measure, out, unmeasured=unmeasured)
