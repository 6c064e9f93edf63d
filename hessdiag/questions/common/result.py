"""What every result holds beside its question's own numbers: what was measured, whether to trust it, what it means.

A result is one frozen dataclass from measurement to page. The document is its serialization, and is read back into the
same classes. A field without a default has been in every version's documents; one that came later has the default that
stands for its absence. Fields marked `OPTIONAL` are left out of documents where they are `None`.
"""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from msgspec import Meta

from hessdiag.curvature.point.result import Kink, Point
from hessdiag.fields import Count, NonEmpty, Number, Share

Level = Literal["ok", "note", "warn", "bad"]
Status = Literal["ok", "inexact", "interrupted"]
Shape = list[int | list[int]] | dict[str, list[int]]  # of one sample; of several inputs, one each

if TYPE_CHECKING:
    Prediction: TypeAlias = Any  # each question has a class of its own
else:
    Prediction = dict[str, Any] | None  # of one that predicts nothing: what a newer version may have

OPTIONAL = {"optional": True}


@dataclass(frozen=True)
class Finding:
    """One sentence of a verdict with the number behind it and what a person can do; empty where that is nothing."""

    level: Level
    says: str
    because: str
    remedy: str = field(metadata={"name": "try"})  # a word of Python, which no attribute can be called


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was measured, of networks that the question makes itself.

    Attributes:
        model: Its name.
        device: Where.
        dtype: In which numbers.
        seed: Of all that is random.
        notes: Remarks to keep in mind.
    """

    model: str = ""
    device: str
    dtype: str
    seed: int | None
    notes: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that was read."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """A layer's part of the parameters."""

    name: str
    kind: str
    parameters: Count


@dataclass(frozen=True, kw_only=True)
class AveragedOver:
    """What the loss is a mean of."""

    what: str
    count: Annotated[float, Meta(ge=0, le=2**63)]


@dataclass(frozen=True, kw_only=True)
class ModelSubject(Subject):
    """What was measured, of a given model with its batch and loss.

    Attributes:
        spec: Text that names the model; `None` for one that was handed over in Python.
        parameters: How many are differentiated, N.
        input_shape: Of one sample.
        synthetic: Whether the batch is made up.
        loss_definition: The loss in words.
        train_mode: Whether it was measured in training mode, all of it; if not, in evaluation mode.
        modules: How many modules without parts it has; `None` where that was not looked at.
        modules_in_training: How many of them were in training mode when the model came.
        trusted_code: Whether a file ran code of its own.
    """

    device: str = ""
    dtype: str = ""
    seed: int | None = None
    spec: str | None = None
    weights: str | None = None
    weights_left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    data: str | None = None
    parameters: Count | None = None
    parameters_total: Count | None = None
    frozen: Count | None = None
    tied: Count | None = None
    layers: tuple[LayerSize, ...] = ()
    layers_glob: str | None = None
    samples: Count | None = None
    batches: Count = 1
    targets: Count | None = None
    batch_weights: NonEmpty[Share] | None = None
    averaged_over: AveragedOver | None = None
    input_shape: Shape | None = None
    outputs: Count | None = None
    synthetic: bool = False
    loss: str | None = None
    loss_kind: str | None = None
    loss_definition: str | None = None
    reduction: str | None = None
    train_mode: bool = False
    modules: Count | None = None
    modules_in_training: Count | None = None
    weights_sha256: str | None = None
    data_sha256: str | None = None
    files: tuple[File, ...] | None = None
    trusted_code: bool = False
    kernels_forced: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Weights of batches are shown where there are several."""
        if self.averaged_over is not None and self.batches != 1 and self.batch_weights is None:
            raise ValueError("`batch_weights` is missing, and there are several batches")


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """In which arithmetic was measured."""

    float32: str
    set_aside: tuple[str, ...] = ()
    repeatable: bool = True


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a model was spread over processes, each of which kept a piece of every parameter and vector.

    Attributes:
        processes: How many.
        piece_bytes: Of the differentiated parameters, in one process.
        largest_unit_bytes: Of the largest part of the model that was whole at a time.
        peak_memory_bytes: Most memory that each process held, by rank, all it has loaded included.
    """

    processes: Count
    piece_bytes: Count
    largest_unit_bytes: Count
    peak_memory_bytes: tuple[Count, ...]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How the numbers came to be: an allow-list of facts, with no environment, host name or user name in it.

    Attributes:
        argv: The command line, with what the environment and a found file set; empty in Python.
        wall_seconds: With loading, where a command loaded.
        cost: What was planned and spent, where products are what takes time.
        resumed_pieces: How many finished pieces of an earlier run were taken up.
        sharding: How the model was spread over processes; `None` where each had all of it.
    """

    argv: tuple[str, ...] = ()
    started: str = ""
    wall_seconds: float | None = None
    peak_memory_bytes: Count | None = None
    versions: dict[str, str] = field(default_factory=dict)
    platform: str = "?"
    device: str = "?"
    threads: Count | None = None
    kernels_forced: tuple[str, ...] | None = None
    arithmetic: Arithmetic | None = None
    gpu: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    resumed_pieces: Count | None = field(default=None, metadata=OPTIONAL)
    cost: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    sharding: Sharding | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The end of every result; questions add their numbers, which are the document's "result".

    Attributes:
        command: Name of the question.
        status: "ok", "inexact" (not to be trusted) or "interrupted" (what was complete by then).
        problem: What was measured.
        theory: What closed forms predict for the same setting; `None` where there are none.
        checks: Self-checks of the computation, by name; `None` where one could not be made.
        thresholds: What they allow, by name.
        findings: The verdict, the most severe first.
        provenance: How the numbers came to be.
    """

    command: ClassVar[str]

    status: Status = "ok"
    problem: Subject = Subject(device="", dtype="", seed=None)
    theory: Prediction = None
    checks: dict[str, Number] = field(default_factory=dict)
    thresholds: dict[str, Number] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    provenance: Provenance = Provenance()

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt ended the measurement: what was complete by then is here."""
        return self.status == "interrupted"

    @property
    def resumed_pieces(self) -> int:
        """How many finished pieces of an earlier run were taken up."""
        return self.provenance.resumed_pieces or 0

    def __init_subclass__(cls) -> None:
        """Every result has the short form: what dataclasses would write for it fills screens."""
        super().__init_subclass__()
        cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """Its headline numbers and what is said first, for a prompt and a notebook's last line."""
        briefly: str = import_module("hessdiag.questions.brief").brief(self)
        return briefly

    def to_json(self) -> str:
        """The result document, as `--json` prints it; `hessdiag.load` reads it back."""
        return _rendered(self, "json")

    def to_markdown(self) -> str:
        """The report in Markdown."""
        return _rendered(self, "markdown")

    def to_html(self, path: str | Path) -> None:
        """Write the report as one self-contained page, whole or not at all; a file that is there is replaced."""
        from hessdiag import files

        content = _rendered(self, "html").encode("utf-8")
        files.write(Path(path), lambda stream: stream.write(content), replace=True)

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in a frame of its own, so that its style stays its own."""
        from html import escape

        page = escape(_rendered(self, "html"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:40em;border:0"></iframe>'


@dataclass(frozen=True, kw_only=True)
class Measured(Result):
    """The end of what is measured of one model's curvature.

    Attributes:
        problem: The model, its batch and its loss.
        trusted: Whether the self-checks of the products passed. Where they did not, nothing is proven by the numbers.
        check_tolerance: Largest relative error that they allow.
        point: What kind of point the parameters are at; `None` where it was not looked at.
        kinks: Where units lie at a kink.
    """

    problem: ModelSubject = ModelSubject()
    trusted: bool = True
    check_tolerance: Number = None
    point: Point | None = None
    kinks: tuple[Kink, ...] | None = field(default=None, metadata=OPTIONAL)


def _rendered(result: Result, form: str) -> str:
    pages = import_module("hessdiag.questions.pages")  # by name: pages read results, which do without them
    text: str = pages.render(result, form)
    return text
