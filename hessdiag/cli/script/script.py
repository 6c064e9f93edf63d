"""From the options of a command line to the script: the same problem, the same function, the same options, the verdict.

Nothing here lists options. The functions are those that the registry says a question has in public; an option is passed
where the function has a parameter of its name, and loads the problem where `ProblemRequest` has a field of it; what is
left is said to be of the command line alone. Where a command does more than that with its options, it has an
`Arguments` that says so, and that its own code goes by.
"""

import os
import shlex
from pathlib import PurePath
from typing import Any

import click

from hessdiag.cli import config
from hessdiag.cli.options import MetricText, named, saved_result, targets
from hessdiag.cli.script.arguments import Arguments, Params
from hessdiag.cli.script.signature import Signature, signature
from hessdiag.cli.script.source import INDENT, Code, call, literal
from hessdiag.cli.settings import environment
from hessdiag.cli.settings.keys import options, origins
from hessdiag.cli.settings.spelled import is_given, typed
from hessdiag.questions import documents
from hessdiag.questions.registry import QUESTIONS
from hessdiag.report.formats import SUFFIXES
from hessdiag.report.visible import visible

REQUEST = (*config.PROBLEM_KEYS, "trust_code", "shard")
OUTPUT = ("as_json", "form", "file")
PRINTED = {"json": "print(result.to_json())", "markdown": "print(result.to_markdown())"}
VERDICT = """\
for finding in result.findings:
    print(f"{finding.level}: {finding.says}")"""


class Script:
    """A script as it is put together.

    Attributes:
        imports: Lines besides `import hessdiag`.
        body: Statements, in order.
        used: Parameters of the command that are in it.
    """

    def __init__(self, ctx: click.Context) -> None:
        self.ctx = ctx
        self.imports: set[str] = set()
        self.body: list[str] = []
        self.used: set[str] = set()
        self.given = _given(ctx)
        self.arguments: Arguments = getattr(ctx.command, "arguments", Arguments())

    def load(self, model: Any, others: Params, *, indent: str = "", end: str = "problem = ") -> None:
        """Load the problem of a model, with what is given of the fields of a request."""
        fields = {name: self.given[name] for name in REQUEST if name in self.given and name not in ("model", "weights")}
        self.used |= fields.keys()
        fields |= others
        if fields.get("batches") == "all":
            self.imports.add("from hessdiag.problem.load import ALL")
            fields["batches"] = Code("ALL")
        asked = {name: value for name, value in fields.items() if value is not None}
        self.body.append(call("hessdiag.ProblemRequest", [model], asked, into="request = ", indent=indent))
        self.body.append(f"{indent}{end}hessdiag.load_problem(request)")

    def ask(self, of: Signature, first: list[Any], *, into: str = "result = ", **others: Any) -> None:
        """Call the question's function, with what is given of its parameters."""
        passed = {name: value for name, value in self.given.items() if name in of.names}
        self.used |= passed.keys()
        chosen = self.arguments.passes(self.params)
        self.used |= {name for name in self.arguments.takes if name in self.given}
        passed |= {name: value for name, value in chosen.items() if name in of.names and value is not None}
        if isinstance(metric := passed.get("metric"), MetricText):
            passed["metric"] = self._metric(metric)
        self.body.append(call(f"hessdiag.{of.function}", first, passed | others, into=into))

    def _metric(self, metric: MetricText) -> Any:
        if metric.state is None:
            return metric.spec
        self.imports.add("from hessdiag.optimizers.preconditioning import preconditioning")
        self.body.append(
            call("preconditioning", [Code("problem"), metric.spec], {"state": metric.state}, into="metric = ")
        )
        return Code("metric")

    @property
    def params(self) -> Params:
        """The command's parameters, with models and weights as the configuration has them, too."""
        params = dict(self.ctx.params)
        if "models" in params:
            params["models"], params["weights"] = named(self.ctx, params["models"], params["weights"])
        return params

    def answer(self) -> None:
        """Print and write what the command would."""
        form = "json" if self.given.get("as_json") else self.given.get("form")
        self.body.append(PRINTED.get(form or "text", VERDICT))
        self.used |= {name for name in ("as_json", "form") if name in self.given and form in (*PRINTED, "text")}
        file = self.given.get("file")
        written = SUFFIXES.get(PurePath(file).suffix.lower()) if file else None
        if written == "html":
            self.body.append(call("result.to_html", [file], {}))
        elif written in PRINTED:
            self.imports.add("from pathlib import Path")
            self.body.append(call("Path", [file], {}, into="path = "))
            self.body.append(f'path.write_text(result.to_{written}(), "utf-8")')
        self.used |= {"file"} if written == "html" or written in PRINTED else set()

    def text(self) -> str:
        """The whole of it."""
        argv = self.ctx.meta.get("hessdiag.argv", [self.ctx.command_path])
        words = shlex.join(one for one in argv if one.replace("_", "-") != "--show-python")
        line = visible(" ".join([*_variables(self.ctx), words]))
        left = [_typed(name, self.given[name], self.ctx) for name in self.given if name not in self.used]
        said = [f"# Of the command line alone: {visible(', '.join(left))}"] if left else []
        own = sorted(line for line in self.imports if "hessdiag" in line)
        first = sorted(self.imports - set(own))
        head = [f"# What this does: {line}", *said, *([*first, ""] if first else []), "import hessdiag", *own, ""]
        defines = self.body and self.body[0].startswith("def ")
        return "\n".join([*head, *([""] if defines else []), *self.body, ""])


def show_python(ctx: click.Context) -> str:
    """The script that does what the command line does.

    Raises:
        SpecError: if there is no model, or what is given contradicts itself.
    """
    script = Script(ctx)
    script.arguments.refuse(script.params)
    asked = next(one for one in QUESTIONS if one.name == ctx.info_name)
    if asked.name == documents.REPORT and (saved := saved_result(ctx, ctx.params["models"])) is not None:
        script.body.append(call("hessdiag.load", [saved], {}, into="result = "))
        script.answer()
        return script.text()
    functions = [signature(name) for name in asked.public if name.islower()]
    many = next((one for one in functions if one.many), None)
    if many is not None:
        given = next(one.name or "" for one in ctx.command.params if isinstance(one, click.Argument))
        script.ask(many, list(ctx.params[given]))
    elif "models" not in ctx.params:
        _of_template(script, functions)
    elif script.arguments.of_model(bool(script.params["models"])) or all(one.first for one in functions):
        _of_models(script, functions)
    else:
        script.ask(next(one for one in functions if one.first is None), [])
    script.answer()
    return script.text()


def _of_models(script: Script, functions: list[Signature]) -> None:
    """One model, or one checkpoint after the other."""
    ctx, params = script.ctx, script.params
    loads = script.arguments.loads(params)
    models = params["models"] or tuple(loads[name] for name in ("model",) if name in loads)
    asked = targets(ctx, models, params["weights"])
    requests = [one.request for one in asked]
    script.used |= {"weights"} & script.given.keys()
    others = {name: value for name, value in loads.items() if name != "model"}
    along = next((one for one in functions if one.first not in (None, "problem", "build")), None)
    building = next((one for one in functions if one.first == "build"), None)
    single = next(one for one in functions if one.first == "problem")
    if len(requests) > 1 and along is not None:
        _along(script, single, along, [(one.label, one.request) for one in asked])
    elif building is not None and script.arguments.builds(params):
        script.body.append("def build(seed):")
        script.load(requests[0]["model"], {**others, "seed": Code("seed")}, indent=INDENT, end="return ")
        script.body.append("\n")
        script.ask(building, [Code("build")])
    else:
        script.load(requests[0]["model"], {"weights": requests[0]["weights"], **others})
        script.ask(single, [Code("problem")])


def _along(script: Script, single: Signature, along: Signature, asked: list[tuple[str, Params]]) -> None:
    """A trajectory: one measurement after the other, then all of them together."""
    folder = script.given.get("resume")
    script.body.append("runs = []")
    for index, (label, request) in enumerate(asked, 1):
        script.load(request["model"], {"weights": request["weights"]})
        below = {} if folder is None else {"resume": (PurePath(folder) / str(index)).as_posix()}
        script.ask(single, [Code("problem")], into="share = ", **below)
        script.body.append(call("runs.append", [(label, Code("share"))], {}))
    script.body.append(f"result = hessdiag.{along.function}(runs)")


def _of_template(script: Script, functions: list[Signature]) -> None:
    """A spec with a place for the size in it, or no model at all."""
    spec = script.ctx.params.get("model")
    own = next((one for one in functions if one.first is None), None)
    if spec is None and own is not None:
        script.ask(own, [])
        return
    building = next(one for one in functions if one.first == "build")
    loads = script.arguments.loads(script.params)
    script.used |= {name for name in ("batch",) if name in script.given}
    place = loads.pop("place")
    script.body.append("def build(size, seed):")
    at_size = call(f"{literal(spec)}.replace", [place, Code("str(size)")], {}, into="spec = ", indent=INDENT)
    script.body.append(at_size)
    script.load(Code("spec"), {**loads, "seed": Code("seed")}, indent=INDENT, end="return ")
    script.body.append("\n")
    script.ask(building, [Code("build")])


def _given(ctx: click.Context) -> dict[str, Any]:
    """Options that are not at their defaults, by parameter; a metric with its state, as commands get it."""
    found = {
        option.name or "": ctx.params[option.name or ""]
        for option in options(ctx.command).values()
        if is_given(ctx, option)
    }
    if "metric" in found:
        found["metric"] = MetricText(found["metric"], found.pop("state", None))
    return found


def _variables(ctx: click.Context) -> list[str]:
    """What the environment set, as a shell takes it in front of a command."""
    held = [one for name, one in origins(ctx).items() if one.how == environment.HOW and not _overridden(ctx, name)]
    return [f"{one.where}={shlex.quote(os.environ[one.where])}" for one in held]


def _overridden(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _typed(name: str, value: Any, ctx: click.Context) -> str:
    """An option as it is typed."""
    option = next(one for one in options(ctx.command).values() if one.name == name)
    return shlex.join(typed(option, value))
