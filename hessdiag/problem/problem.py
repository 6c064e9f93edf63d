"""The `Problem`: what every diagnostic is handed. A model, its data and a scalar objective of the two."""

import copy
import fnmatch
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessdiag.errors import ComputeError, HessdiagError, LoadError, SpecError
from hessdiag.machine import arithmetic, lost_gpu
from hessdiag.machine.shortage import ran_out
from hessdiag.problem import guard, kernels, order, privately, structure
from hessdiag.problem.batches import averages, finite, indices
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.device import NO_MPS
from hessdiag.problem.losses import loss as losses
from hessdiag.problem.losses import recognised
from hessdiag.problem.measuring import measuring


@dataclass(frozen=True)
class Layer:
    """The parameters that one module owns: consecutive entries `start:stop` of the parameter vector.

    Attributes:
        name: For people: the module's path, or the parameter's name if the whole model owns it.
        kind: Class of the module.
        path: Where the module is in the model; empty for the model itself.
        start: First entry.
        stop: Past the last entry.
    """

    name: str
    kind: str
    path: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Problem:
    """A model, batches and an objective: the function of the parameters whose Hessian is measured.

    The function is the average of the objective over the batches, weighted by what the loss averages over: targets that
    are not ignored, elements of the output, or samples (a sum, if the loss sums).
    Parameters are the model's trainable ones, in the order of `model.parameters()`; tied ones count once.

    Args:
        model: The network. It is never modified: training flags and buffers are put back after each use.
        data: Batches: `(x, y)`, `((x1, x2), y)`, a mapping, or anything that `objective` takes.
        loss: A name (`ce`, `mse`, `bce`, `nll`, `output`) or a function of (output, target).
        objective: A function of (model, batch) returning a scalar; instead of `loss`.
        reduction: "mean" or "sum", where the loss does not tell.
        layers: Glob over parameter names; only the matching parameters are differentiated.
        train_mode: Evaluate in training mode (BatchNorm by batch statistics, dropout with one fixed mask).
        seed: Fixes the dropout mask.
        source: How it came to be, for the report: spec, files, what was stripped or assumed.
        notes: Sentences that a reader of the result must see.
        one_draw: Start torch's random numbers anew from `seed` in every evaluation, so that a model that draws some in
            its forward pass is one function: that of this draw.

    Raises:
        SpecError: if both or neither of `loss` and `objective` are given, or `layers` matches nothing.
        LoadError: if there is no batch or no trainable parameter, or a batch is not finite.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> problem = Problem(model, data=[(torch.zeros(4, 2), torch.zeros(4, 1))], loss="mse")
    >>> problem.n_parameters, problem.n_samples, [layer.name for layer in problem.layer_slices]
    (13, 4, ['0', '2'])
    """

    model: nn.Module
    data: Sequence[Any]
    loss: Any = None
    objective: losses.Objective | None = None
    reduction: losses.Reduction | None = None
    layers: str | None = None
    train_mode: bool = False
    seed: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    one_draw: bool = False

    def __post_init__(self) -> None:
        if (self.loss is None) == (self.objective is None):
            raise SpecError("a problem needs a loss or an objective, and not both.", "loss='ce'")
        if not self.data:
            raise LoadError("a problem needs at least one batch; none was given.")
        batches.check_finite(self.data)
        self._leave_out_uncounted()
        object.__setattr__(self, "model", uncompiled(self.model))
        self._refuse_odd_parameters()
        if not self.named_parameters:
            if self.layers is not None:
                names = ", ".join(list(dict(self.model.named_parameters()))[:4])
                raise SpecError(
                    f"--layers {self.layers!r} matches no trainable parameter (there are {names}, ...).",
                    "--layers '*'",
                )
            raise LoadError("the model has no trainable parameter: all are frozen, or there are none.")

    def _leave_out_uncounted(self) -> None:
        """Batches in which no target counts: their mean is over nothing, NaN, and their weight is zero."""
        if len(self.data) == 1 or self._loss is None or self._loss.kind not in averages.CLASSES:
            return
        counted = [batch for batch in self.data if self.terms(batch).count]
        if left := len(self.data) - len(counted):
            note = f"data: {left} of {len(self.data)} batches are left out, for all their targets are ignored"
            object.__setattr__(self, "data", counted or self.data[:1])
            object.__setattr__(self, "notes", (*self.notes, note))

    def _refuse_odd_parameters(self) -> None:
        for name, parameter in self.model.named_parameters():
            if isinstance(parameter, nn.UninitializedParameter):
                raise LoadError(
                    f"the parameter {name} has no shape yet: the model is lazy.", "call the model once on a batch"
                )
            if parameter.device.type == "mps":
                raise LoadError(NO_MPS, "model.to('cpu')")
            if parameter.is_complex():
                raise LoadError(
                    f"the parameter {name} is complex; the Hessian is that of real parameters.",
                    "torch.view_as_complex of a real parameter",
                )

    @cached_property
    def _loss(self) -> losses.Loss | None:
        named = isinstance(self.loss, str) and self.loss == "output"
        return None if self.loss is None or named else losses.resolve(self.loss)

    @cached_property
    def loss_of_output(self) -> losses.Loss | None:
        """The loss as a function of what the model puts out; `None` where it is none, see `why_no_loss_of_output`.

        It is the loss itself; one that the model computes is compared with those that are known, on all batches.
        """
        return self._loss or self._recognition.loss

    @property
    def why_no_loss_of_output(self) -> str:
        """Why the loss is no known function of the model's output."""
        if self.objective is not None:
            return "an objective is no function of the model's output alone"
        return f"the loss that the model computes is no known function of its logits ({self._recognition.missing})"

    @cached_property
    def _recognition(self) -> recognised.Recognition:
        if self.objective is not None:
            return recognised.Recognition(None)
        return recognised.recognise(self.model, self.data, self.parameters, self.evaluation)

    @cached_property
    def objective_function(self) -> losses.Objective:
        """The objective `(model, batch) -> scalar`: the one that was given, or the loss of the model's output."""
        if self.objective is not None:
            return self.objective
        return losses.objective(self._loss) if self._loss is not None else losses.output_loss

    @cached_property
    def named_parameters(self) -> tuple[tuple[str, nn.Parameter], ...]:
        """Trainable parameters that `layers` admits, each once."""
        wanted = self.layers or "*"
        return tuple(
            (name, parameter)
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and parameter.numel() and _matches(name, wanted)
        )

    @cached_property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The tensors that the parameter vector consists of, in order."""
        return tuple(parameter for _, parameter in self.named_parameters)

    @cached_property
    def _modules(self) -> tuple[nn.Module, ...]:
        """All modules, looked up once: walking a deep model takes as long as a Hessian-vector product."""
        return tuple(self.model.modules())

    @cached_property
    def n_parameters(self) -> int:
        """Length N of the parameter vector."""
        return sum(parameter.numel() for parameter in self.parameters)

    @cached_property
    def _places(self) -> tuple[slice, ...]:
        stops = list(accumulate(parameter.numel() for parameter in self.parameters))
        return tuple(slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True))

    def places(self, layer: Layer | None = None) -> tuple[slice, ...]:
        """Where each parameter tensor, or each of one layer, lies in the parameter vector."""
        if layer is None:
            return self._places
        return tuple(place for place in self._places if layer.start <= place.start < layer.stop)

    def parameters_of(self, layer: Layer | None = None) -> tuple[nn.Parameter, ...]:
        """All parameter tensors, or those of one layer."""
        if layer is None:
            return self.parameters
        pairs = zip(self.parameters, self._places, strict=True)
        return tuple(parameter for parameter, place in pairs if layer.start <= place.start < layer.stop)

    @cached_property
    def layer_slices(self) -> tuple[Layer, ...]:
        """Parameters grouped by the module that owns them, in the order of the parameter vector."""
        layers: list[Layer] = []
        start = 0
        modules = dict(self.model.named_modules(remove_duplicate=False))  # TorchScript has no get_submodule
        single = next(self.model.children(), None) is None  # the model is one layer: its parameters belong together
        for name, parameter in self.named_parameters:
            owner = name.rpartition(".")[0]
            stop = start + parameter.numel()
            together = bool(owner) or single
            kind = _kind(modules[owner]) if together else "Parameter"
            label = owner or (kind if single else name)
            if layers and layers[-1].name == label and together:
                layers[-1] = Layer(label, kind, owner, layers[-1].start, stop)
            else:
                layers.append(Layer(label, kind, owner, start, stop))
            start = stop
        return tuple(layers)

    @cached_property
    def _order(self) -> order.Order:
        """In which order the first batch meets the layers; one evaluation, watched."""
        owner = [index for index, layer in enumerate(self.layer_slices) for _ in self.parameters_of(layer)]
        batch = self.data[0]
        try:
            with self._evaluation(fold=False):  # folding would mix layers
                buffers = [
                    buffer for module in self._modules for buffer in module._buffers.values() if buffer is not None
                ]
                pairs = zip(owner, self.parameters, strict=True)
                return order.observed(pairs, buffers, batches.tensors(batch), lambda: self._value(batch))
        except (HessdiagError, RuntimeError, NotImplementedError, TypeError, AttributeError, AssertionError):
            return order.by_registration(len(self.layer_slices))  # what fails here is said where it is needed

    @cached_property
    def executed_layers(self) -> tuple[Layer, ...]:
        """The layers of `layer_slices` in the order of their first use, those that are never used last."""
        return tuple(self.layer_slices[index] for index in self._order.sequence)

    @cached_property
    def depths(self) -> tuple[int | None, ...]:
        """How deep each of `executed_layers` lies, counted in layers that multiply by a matrix, from 1.

        `None` for what is not on the longest way from the data to the loss: norms, scalars of the loss, shortcuts.
        """
        return tuple(self._order.depths[index] for index in self._order.sequence)

    def terms(self, batch: Any) -> averages.Terms:
        """What the loss of a batch is a mean of, of this problem or of another of the same form."""
        if self._loss is None:
            if self.objective is not None:
                return averages.of_batch(batch)
            return averages.of_labels(batch, lambda other: self.evaluate(other).detach())
        asked = averages.may_broadcast(self._loss) and len(self.data) > 1  # else nothing hangs on it
        return averages.of_loss(self._loss, batch, self._output(batch) if asked else None)

    def _output(self, batch: Any) -> Any:
        # Gradients stay on: a model may need them in its forward pass.
        with self.evaluation(), indices.watched(self.model):
            return batches.forward(self.model, batches.split(batch)[0])

    @cached_property
    def averaged(self) -> averages.Terms:
        """What the loss is a mean of, in all batches."""
        return averages.joined(self._terms)

    @cached_property
    def _terms(self) -> tuple[averages.Terms, ...]:
        return tuple(self.terms(batch) for batch in self.data)

    @cached_property
    def n_samples(self) -> int:
        """Samples in all batches, see `batch.samples`."""
        return sum(batches.samples(batch) for batch in self.data)

    @cached_property
    def n_targets(self) -> int:
        """Targets in all batches: samples, but of cross-entropy each token, node or pixel that has a target."""
        return self.averaged.positions

    @cached_property
    def n_outputs(self) -> int | None:
        """Numbers that the loss receives of the model per target; `None` where only an objective is known."""
        if self._loss is None:
            return None
        output = self._output(self.data[0])
        whole = not (self._loss.of_tensor or hasattr(output, "logits"))  # beside logits, models return what they cached
        try:
            taken = structure.flatten(output)[0] if whole else (batches.output_tensor(output),)
        except LoadError:
            return None
        numbers = sum(tensor.numel() for tensor in taken)
        return numbers // max(self._terms[0].positions, 1) if numbers else None

    @cached_property
    def loss_name(self) -> str:
        """Name of the loss, for people."""
        if self._loss is not None:
            return self._loss.name
        return "output" if self.objective is None else getattr(self.objective, "__name__", "objective")

    @cached_property
    def loss_reduction(self) -> losses.Reduction:
        """How the loss joins samples: a mean and a sum scale the Hessian differently."""
        return self.reduction or (self._loss.reduction if self._loss is not None else "unknown")

    @cached_property
    def batch_weights(self) -> tuple[float, ...]:
        """Weight of each batch's objective in the whole: 1 for a sum, else its share of what the loss averages over."""
        if self.loss_reduction == "sum":
            return (1.0,) * len(self.data)
        if not self.averaged.count:
            raise LoadError("every target is ignored (-100): the loss is a mean over nothing.")
        return tuple(terms.count / self.averaged.count for terms in self._terms)

    @property
    def rewritten(self) -> tuple[str, ...]:
        """Parameters that the model's own forward pass changes; empty until one was run."""
        return tuple(vars(self).get("_rewritten", ()))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    @cached_property
    def dtype(self) -> torch.dtype:
        """The widest dtype among the parameters."""
        dtype = self.parameters[0].dtype
        for parameter in self.parameters[1:]:
            dtype = torch.promote_types(dtype, parameter.dtype)
        return dtype

    @cached_property
    def kernels_forced(self) -> tuple[str, ...]:
        """What is switched off because it has no second derivative."""
        forced = ["attention: math kernel (the fused ones have no double backward)"]
        if any(isinstance(module, (nn.TransformerEncoder, nn.TransformerEncoderLayer)) for module in self._modules):
            forced.append("transformer encoder: layer by layer (the fused path has no derivatives, and drops padding)")
        if any(name.endswith(("weight_g", "weight.original0")) for name, _ in self.model.named_parameters()):
            forced.append("weight_norm: plain formula (the fused one has a wrong second derivative)")
        if any(isinstance(module, nn.EmbeddingBag) for module in self._modules):
            forced.append("embedding_bag: plain sums of rows (the fused one is differentiable only once)")
        if self.device.type == "cuda" and any(isinstance(module, nn.RNNBase) for module in self._modules):
            forced.append("cuDNN off for recurrent layers (no double backward)")
        return tuple(forced)

    @cached_property
    def _folds(self) -> bool:
        """Whether batch norm can become part of convolutions: only if value and gradient of the first batch stay.

        They do not where the model does more with a convolution's output than to normalize it: detaches it, changes it
        by `.data`, hooks it, or differentiates with respect to it.
        """
        kinds = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
        if self.train_mode or not all(any(isinstance(module, kind) for module in self._modules) for kind in kinds):
            return False
        try:
            plain, folded = (self._value_and_gradient(fold) for fold in (False, True))
        except (HessdiagError, RuntimeError):
            return False
        tolerance = torch.finfo(self.dtype).eps ** 0.5
        return all(bool((a - b).norm() <= tolerance * a.norm()) for a, b in zip(plain, folded, strict=True))

    def as_written(self, **changes: Any) -> "Problem":
        """A copy with these attributes changed, in which nothing is folded.

        For gradients, which folding does not make faster, and for what checks it.
        """
        other = self.like(**changes)
        vars(other)["_folds"] = False
        return other

    def like(self, **changes: Any) -> "Problem":
        """A copy with these attributes changed, for the same loss and function.

        What the loss was recognised as stays, and that an evaluation rewrote parameters: the private copy of the model
        that took its place does so no more.
        """
        other = replace(self, **changes)
        if "_recognition" in vars(self):
            vars(other)["_recognition"] = self._recognition
        if self.rewritten:
            vars(other).update(_rewritten=self.rewritten, _harmless=vars(self)["_harmless"])
        return other

    def _value_and_gradient(self, fold: bool) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), self._evaluation(fold):
            value = self._value(self.data[0])
            gradient = torch.autograd.grad(value, self.parameters, materialize_grads=True, allow_unused=True)
        return value.detach(), torch.cat([part.reshape(-1).to(self.dtype) for part in gradient])

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Everything that an evaluation needs, undone afterwards: mode, buffers, random state, kernels, arithmetic."""
        with self._evaluation(self._folds):
            yield

    @contextmanager
    def _evaluation(self, fold: bool) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(measuring(self.device))
            if not vars(self).get("_harmless"):
                stack.enter_context(self._parameters_kept())
            stack.enter_context(_mode(self.model, self._modules, self.train_mode))
            stack.enter_context(privately.private_buffers(self._modules))
            stack.enter_context(kernels.dense_embeddings(self._modules))
            stack.enter_context(kernels.plain_embedding_bag())
            stack.enter_context(kernels.plain_weight_norm())
            stack.enter_context(guard.plain_checkpoints())
            if self.rewritten:
                stack.enter_context(guard.idle_renorm())
            stack.enter_context(kernels.plain_batch_norm(fold=fold))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(kernels.plain_transformer())
            if "torch._dynamo" in sys.modules:  # whoever compiles has loaded it; by itself it takes a second
                stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled graphs: no double backward
            if self.device.type == "cuda" and any(isinstance(module, nn.RNNBase) for module in self._modules):
                stack.enter_context(kernels.no_cudnn())
            if (self.train_mode or self.one_draw) and not vars(self).get("_drawless"):
                stack.enter_context(privately.own_draws(self.device, self.seed))
            yield

    @contextmanager
    def _parameters_kept(self) -> Iterator[None]:
        """Put parameters back that an evaluation changes, as embeddings with `max_norm` do; the first one is watched.

        Where one changes them, a private copy of the model takes its place, so that all later numbers are of one point.
        """
        model = self.model
        kept = guard.snapshot(model)
        returned = False
        try:
            yield
            returned = True
        finally:
            changed = guard.restore(model, kept)
            if changed and self.model is model:
                vars(self)["_rewritten"] = changed
                vars(self)["_harmless"] = self._part_from(model)
            elif returned and not self.rewritten:
                vars(self)["_harmless"] = True

    def _part_from(self, model: nn.Module) -> bool:
        """Go on with a copy of the model; whether it can be copied."""
        try:
            own = copy.deepcopy(model)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError):
            return False
        object.__setattr__(self, "model", own)
        for name in ("named_parameters", "parameters", "_modules"):
            vars(self).pop(name, None)
        return True

    def value(self) -> float:
        """The function whose Hessian is measured: the objective of all batches, each in its weight.

        Raises:
            ComputeError: if a value is not a finite scalar, or model, batch and loss do not fit.

        >>> model = nn.Linear(1, 1, bias=False).double()
        >>> _ = nn.init.ones_(model.weight)
        >>> batches = [(torch.ones(1, 1).double(), torch.zeros(1, 1).double()), (torch.zeros(3, 1), torch.zeros(3, 1))]
        >>> Problem(model, data=[(x.double(), y.double()) for x, y in batches], loss="mse").value()
        0.25
        """
        pairs = zip(self.batch_weights, self.data, strict=True)
        return sum(weight * float(self.evaluate(batch).detach()) for weight, batch in pairs)

    def evaluate(self, batch: Any) -> Tensor:
        """The objective of one batch, a scalar with a graph that can be differentiated twice.

        Raises:
            ComputeError: if the value is not a finite scalar, or model, batch and loss do not fit.
        """
        model = self.model
        with self.evaluation(), self._first_look(batch):
            value = self._value(batch)
        return value if self.model is model else self.evaluate(batch)

    @contextmanager
    def _first_look(self, batch: Any) -> Iterator[None]:
        """Watch the indices in the first evaluation of a batch, where one out of range cannot be mended afterwards."""
        looked: set[int] = vars(self).setdefault("_looked", set())
        if id(batch) in looked:
            yield
            return
        with indices.watched(self.model):
            yield
        if any(batch is own for own in self.data):  # others come and go, and their numbers with them
            looked.add(id(batch))

    @contextmanager
    def asked_once(self) -> Iterator[None]:
        """Ask a GPU at the end whether the values of all evaluations within are finite: each time it is waited for.

        Raises:
            ComputeError: if one of them is not.
        """
        if self.device.type == "cpu" or "_unasked" in vars(self):
            yield
            return
        values: list[tuple[Tensor, Any]] = []
        vars(self)["_unasked"] = values
        try:
            yield
        finally:
            del vars(self)["_unasked"]
        if values and not bool(torch.stack([value.isfinite() for value, _ in values]).all()):
            raise next(self._not_finite(value.item(), batch) for value, batch in values if not bool(value.isfinite()))

    @contextmanager
    def _draws_watched(self) -> Iterator[None]:
        """Find out in the first forward pass on a GPU whether it draws: to put the numbers back is to wait for it."""
        if self.device.type == "cpu" or "_drawless" in vars(self) or not (self.train_mode or self.one_draw):
            yield
            return
        before = privately.draws_taken(self.device)
        yield
        after = privately.draws_taken(self.device)
        vars(self)["_drawless"] = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

    def _value(self, batch: Any) -> Tensor:
        try:
            with self._draws_watched():
                value = self.objective_function(self.model, batch)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if ran_out(error):
                raise
            if lost_gpu.is_lost(error):
                raise LoadError(lost_gpu.WHAT, lost_gpu.HINT) from error
            raise ComputeError(f"model, batch and loss do not fit: {_first_line(error)}", None) from error
        arithmetic.insist()  # a model may allow rounding in its forward pass
        if not isinstance(value, Tensor) or value.numel() != 1:
            form = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            )
            raise ComputeError(
                f"the objective must return a scalar; it returned {form}.",
                "average it, as reduction='mean' does",
            )
        if value.is_complex():
            raise ComputeError("the loss is complex; the Hessian is that of a real number.", "its .real, or .abs()")
        value = value.reshape(())
        if "_unasked" in vars(self):
            vars(self)["_unasked"].append((value.detach(), batch))
        elif not bool(torch.isfinite(value)):
            raise self._not_finite(value.item(), batch)
        return value

    def _not_finite(self, value: float, batch: Any) -> ComputeError:
        """That the loss is no number, and where that begins: in the weights, in a layer or in the loss."""
        if (wrong := finite.culprits(self.model)) is not None:
            where = self.source.get("weights") or self.source.get("model") or "the model"
            return ComputeError(
                f"the loss is {value}, for {where} holds what is no number: {wrong}.",
                finite.DIVERGED,
            )
        layer = finite.origin(self.model, lambda: self.objective_function(self.model, batch))
        begins = f"it begins in the output of {layer}" if layer else "no module puts out anything that is not finite"
        return ComputeError(
            f"the loss is {value}, though parameters and data are finite: {begins}.",
            "--dtype float64, smaller inputs or weights, or a loss without logarithms of zero",
        )


def _matches(name: str, glob: str) -> bool:
    """Whether a parameter, or the module that owns it, matches the glob."""
    return fnmatch.fnmatchcase(name, glob) or fnmatch.fnmatchcase(name.rpartition(".")[0], glob)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def uncompiled(model: nn.Module) -> nn.Module:
    """The module behind `torch.compile`, which has no double backward."""
    original = getattr(model, "_orig_mod", model)
    assert isinstance(original, nn.Module)
    return original


@contextmanager
def _mode(model: nn.Module, modules: Sequence[nn.Module], train: bool) -> Iterator[None]:
    modes = [module.training for module in modules]
    try:
        if any(mode is not train for mode in modes):
            _switch(model, modules, train)
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            if module.training is not training:
                _set_training(module, training)


def _switch(model: nn.Module, modules: Sequence[nn.Module], train: bool) -> None:
    """As `model.train(train)`, which on deep models takes as long as a gradient if every module is asked in turn."""
    if all(type(module).train is nn.Module.train for module in modules):
        for module in modules:
            _set_training(module, train)
    else:
        model.train(train)


def _set_training(module: nn.Module, training: bool) -> None:
    if "training" in vars(module):  # not so in TorchScript; the slow way looks for parameters first
        object.__setattr__(module, "training", training)
    else:
        module.training = training


def _kind(module: nn.Module) -> str:
    """The class of a module; TorchScript keeps it by name."""
    return str(module.original_name) if isinstance(module, torch.jit.ScriptModule) else type(module).__name__
