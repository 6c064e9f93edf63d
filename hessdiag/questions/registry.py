"""Which questions there are: the only list. Commands, views, gates, exports, tables and pages of the docs follow it.

Of the standard library alone: `hessdiag --help` reads it, and must not import a single question,
nor `dataclasses`, which takes as long as all else that `import hessdiag` does.
"""

from collections.abc import Collection
from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Variant(NamedTuple):
    """Another kind of result of a question, with a package of its own below the question's.

    Attributes:
        key: What only its documents have in their "result".
        package: Where its modules `result`, `verdict` and `view` are, below the question's.
        headlines: As of a question.
    """

    key: str
    package: str
    headlines: tuple[str, ...]


class Question(NamedTuple):
    """One question: a package here with the modules `command`, `measure`, `metrics`, `result`, `verdict`, `view`.

    Attributes:
        name: What the command is called.
        help: One line for `hessdiag --help`.
        takes: Its argument in the usage line; empty for none.
        headlines: Paths in its result of the numbers that `--baseline` compares.
        public: What `hessdiag` exports of it, each name with the module of the package that has it.
        asks: The question itself, for README.
        shows: And what it gives, in a sentence or two.
        synonyms: What it may be called by who looks for it, in the form in which names are compared.
        variants: Other kinds of results that its command gives, which are told by their documents.
    """

    name: str
    help: str
    headlines: tuple[str, ...]
    public: dict[str, str]
    takes: str = "MODEL"
    asks: str = ""
    shows: str = ""
    synonyms: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()

    @property
    def package(self) -> str:
        """Where its modules are."""
        return f"{__package__}.{self.name.replace('-', '_')}"

    def module(self, name: str) -> ModuleType:
        """One of its modules, imported on first use."""
        return import_module(f"{self.package}.{name}")

    def variant(self, keys: Collection[str]) -> Variant:
        """The kind of result whose document has these keys; of no key where it is the question's usual one."""
        return next((one for one in self.variants if one.key in keys), Variant("", "", self.headlines))


SINGLE = (
    Question(
        "check",
        "Why will it not train? The true cause first; --try its cure.",
        headlines=("confidence",),
        public={"Check": "result", "check": "measure"},
        asks="Why will it not train?",
        shows=(
            "Causes, ranked: which layer, which number, which threshold, and what to do; symptoms under their cause. "
            "From the actual weights, data, mode, loss and optimizer, in a second. `--try` trains a copy with the "
            "first cure beside the network as it is, and shows both losses."
        ),
        synonyms=("why", "diagnose", "doctor", "debug", "dead", "health"),
    ),
    Question(
        "diag-share",
        "How diagonal is the Hessian, overall and per layer?",
        headlines=("diag_share", "layer_block_share"),
        public={"DiagShare": "result", "diag_share": "measure", "diag_share_along": "trajectory"},
        asks="How diagonal is the Hessian?",
        shows=(
            "Share of its absolute mass on the diagonal: overall, per layer, and inside layer blocks. Exact where "
            "that is quick, else a stratified sample of exact rows with a 95 % interval. Beside it: the Wigner "
            "and least-squares values of random matrices. Several checkpoints give a trajectory."
        ),
        synonyms=("share", "diagonal"),
    ),
    Question(
        "eigs",
        "Lowest and highest eigenpairs: sharpness, negative curvature.",
        headlines=("smallest", "largest"),
        public={"Eigs": "result", "eigs": "measure"},
        asks="How sharp is the loss, and which way does it curve down?",
        shows=(
            "Lowest and highest eigenpairs with true residuals, the largest stable learning rate, proof of "
            "negative curvature, and where in the network the eigenvectors live. With `--metric`, as `spectrum`, "
            "`bounds` and `diag-share` take it too: of the Hessian in your optimizer's own metric."
        ),
        synonyms=("hessian", "eigenvalues", "eigen", "lanczos", "lambda_max"),
    ),
    Question(
        "spectrum",
        "How are the eigenvalues distributed? With error bars.",
        headlines=("trace", "frobenius", "highest"),
        public={"Spectrum": "result", "spectrum": "measure"},
        asks="How are the eigenvalues distributed?",
        shows=(
            "Spectral density with error bars, outliers exact, trace, norm, and how much is negative. Hessian, "
            "Gauss-Newton or Fisher matrix."
        ),
        synonyms=("density", "trace", "slq"),
    ),
    Question(
        "bounds",
        "Where can the eigenvalues be? Gershgorin and tighter.",
        headlines=("gershgorin.0", "gershgorin.1", "measured.1"),
        public={"Bounds": "result", "bounds": "measure"},
        asks="Where can the eigenvalues be?",
        shows=("Gershgorin's interval and five tighter ones, beside the measured extremes."),
        synonyms=("gershgorin",),
    ),
    Question(
        "blocks",
        "Which layers curve, and how do they couple? Norms of all blocks.",
        headlines=("norm", "between_layers", "residual_share"),
        public={"Blocks": "result", "BlocksBy": "by.result", "blocks": "measure"},
        asks="Which layers curve, and how do they couple?",
        shows=(
            "The norm of every layer-by-layer block, split into Gauss-Newton part and residual. With `--by` layer, "
            "tensor, head, neuron, class or a pattern of names: how block-diagonal the Hessian is, in which norm, and "
            "how much the blocks' spectra differ."
        ),
        synonyms=("norms", "layers", "block_diagonal", "heterogeneity"),
        variants=(
            Variant(
                "partition",
                "by",
                ("frobenius_share", "absolute_share", "lambda_max.hessian", "lambda_max.blocks", "heterogeneity"),
            ),
        ),
    ),
    Question(
        "precondition",
        "Which preconditioner is worth its memory? Condition numbers.",
        headlines=("preconditioners.0.condition", "preconditioners.0.effective_dimension"),
        public={"Precondition": "result", "precondition": "measure"},
        asks="Which preconditioner is worth its memory?",
        shows=(
            "Condition number, effective dimension and conjugate-gradient iterations under diagonals, Adam's second "
            "moments, layer blocks, K-FAC, EK-FAC, Shampoo and SOAP, beside the numbers that each holds."
        ),
        synonyms=("preconditioner", "kfac", "shampoo", "soap", "condition_number", "kappa"),
    ),
    Question(
        "trust-radius",
        "How far from here can the Hessian be believed? What kinks hide.",
        headlines=("trusted_radius.uniform", "missing_share"),
        public={"TrustRadius": "result", "trust_radius": "measure"},
        asks="How far from here can the Hessian be believed?",
        shows=(
            "Steps of the quadratic model at radii over four decades, in a ball and in the ellipsoids of RMSprop and "
            "Adagrad: the loss's decrease over the predicted one, and the same with every ReLU held to its side. The "
            "gap is the curvature that autograd's Hessian leaves out."
        ),
        synonyms=("trust", "rho", "trust_region", "kinks", "gates"),
    ),
    Question(
        "sharpness",
        "How large a step will my optimizer take here? Stable or not.",
        headlines=("ratio", "readings.0.value"),
        public={"Sharpness": "result", "sharpness": "measure"},
        asks="How large a step will my optimizer take here?",
        shows=(
            "The curvature that the optimizer sees over what it can take at its learning rate, momentum, betas and "
            "weight decay, with or without its state: stable, at the edge, or not, and the largest learning rate that "
            "would be. Beside it critical sharpness by forward passes alone, curvature along the next step, adaptive "
            "sharpness and the gradient noise scale, each with its error."
        ),
        synonyms=("stability", "edge_of_stability", "eos", "learning_rate", "noise_scale", "critical_sharpness"),
    ),
    Question(
        "forward",
        "Median against mean of forward norms, for several initializations.",
        headlines=("inits.0.log_median_per_layer",),
        public={"Forward": "result", "forward": "measure", "forward_model": "model"},
        takes="[MODEL]",
        asks="How far does a signal get?",
        shows=(
            "Median, mean and root mean square of forward norms, layer by layer, under LeCun, Xavier and He "
            "initialization side by side, beside their exact values. `--solve median` finds the gain that keeps a "
            "typical network's norm."
        ),
        synonyms=("init_norms",),
    ),
    Question(
        "vanishing",
        "Gradient and Hessian norms against depth, beside theory.",
        headlines=("rates.gradient.per_layer", "rates.hessian.per_layer"),
        public={"Vanishing": "result", "vanishing": "measure", "vanishing_of": "models"},
        takes="[MODEL]",
        asks="Do gradients and curvature survive the depth?",
        shows=(
            "Median, mean and quantiles of gradient norm, Hessian norm and its blocks over hundreds of random "
            "networks, at every depth up to yours. Rates per layer with errors, beside theory."
        ),
        synonyms=("depth", "gradients"),
    ),
    Question(
        "transfer",
        "Will a learning rate that was tuned small hold large?",
        headlines=("slopes.lambda_max_weighted.slope", "slopes.activation.slope"),
        public={"Transfer": "result", "transfer": "measure"},
        takes="'MODEL(width={width})'",
        asks="Will a learning rate that was tuned small hold large?",
        shows=(
            "Over widths (or depths) and seeds: powers of the width in the largest eigenvalue, in the curvature that "
            "your optimizer sees, and in what its first steps change in each layer, with errors; which layer drifts, "
            "and the learning rates that would mend it."
        ),
        synonyms=("mup", "width", "hyperparameter", "scaling", "coordcheck"),
    ),
    Question(
        "chain",
        "The width-one network: typical sizes against averages, exactly.",
        headlines=("theory_median_abs", "gradient.theory_median_abs"),
        public={"Chain": "result", "chain": "measure"},
        takes="",
        asks="What is exact for the network of width one?",
        shows=(
            "Closed forms of output, gradient and Hessian beside simulation; critical scales; how long the "
            "plateau takes."
        ),
    ),
    Question(
        "escape",
        "Which optimizer leaves this plateau, when, and why?",
        headlines=("contenders.0.backprops", "plateaus.0.loss"),
        public={"Escape": "result", "escape": "measure", "escape_of": "measure"},
        takes="[MODEL]",
        asks="Which optimizer leaves this plateau, when, and why?",
        shows=(
            "First-order methods, trust regions and others raced from the same start: backpropagations, samples and "
            "seconds until the loss falls, the prediction beside each, and what explains who stays, such as an epsilon "
            "above the gradient."
        ),
        synonyms=("race", "plateau", "optimizers", "stuck"),
    ),
    Question(
        "compare",
        "What changed between two results, and beyond their errors?",
        headlines=("significant", "differences"),
        public={"Compare": "result", "compare": "measure"},
        takes="A.json B.json",
        asks="What changed between two results?",
        shows=(
            "Every number of two or more results of one command: which way it went, and whether beyond the errors of "
            "both, with as many tests in mind as there are. Says what else differs; several make a trajectory."
        ),
        synonyms=("diff", "versus", "regression", "difference", "changes"),
    ),
)
QUESTIONS = (
    *SINGLE,
    Question(
        "report",
        "Everything that applies to a model, in a minute; or show a result.",
        headlines=tuple(f"{one.name}.{path}" for one in SINGLE for path in one.headlines),
        public={"Report": "result", "MonitoredRun": "run.result", "full_report": "measure"},
        asks="What is there to know about this model?",
        shows=(
            "Every question that applies, most telling first, within a budget of time that is planned from timed "
            "products: one verdict, the numbers to look at first, each section as its own command gives it, and what "
            "was left out with what it would take. Of a saved result: the same as text, Markdown or one HTML page. Of "
            "the log of a `hessdiag.Monitor`: its curves, and what they say."
        ),
        synonyms=("render", "show", "all", "everything", "full_report", "summary"),
        variants=(Variant("records", "run", ("loss.last", "lambda_max.last", "sharpness.last")),),
    ),
)

NAMES = tuple(question.name for question in QUESTIONS)


def question(name: str) -> Question:
    """The question of a command.

    Raises:
        KeyError: if there is none of that name.

    >>> question("diag-share").package
    'hessdiag.questions.diag_share'
    """
    found = next((one for one in QUESTIONS if one.name == name), None)
    if found is None:
        raise KeyError(name)
    return found
