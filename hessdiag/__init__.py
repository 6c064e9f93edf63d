"""How is this network curved, and can an optimizer move from where it is initialized?

The names below are imported on first use, so that `import hessdiag` does not import torch. Type checkers and editors
read `__init__.pyi`, which is written from the same registries.
"""

from hessdiag.curvature.registry import OPERATORS
from hessdiag.lazy import lazily
from hessdiag.questions.registry import QUESTIONS
from hessdiag.version import __version__ as __version__

_HOMES = {
    "HessdiagError": "hessdiag.errors",
    "Monitor": "hessdiag.monitor.monitor",
    "Problem": "hessdiag.problem.problem",
    "ProblemRequest": "hessdiag.problem.load",
    "hessian": "hessdiag.curvature.dense",
    "hessian_block": "hessdiag.curvature.dense",
    "in_metric": "hessdiag.curvature.metric",
    "linalg": "",
    "load": "hessdiag.questions.documents",
    "load_problem": "hessdiag.shards.load",
    "optimizers": "",
    "read_data": "hessdiag.problem.loading.stored",
    "results": "",
    "sharded": "hessdiag.shards.problem",
    **{entry.kind: entry.module for entry in OPERATORS},
    **{name: f"{asked.package}.{module}" for asked in QUESTIONS for name, module in asked.public.items()},
}

__all__ = sorted(("__version__", *_HOMES))

__getattr__, __dir__ = lazily(__name__, _HOMES)
