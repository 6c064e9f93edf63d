"""Command lines for the pretended GPU, by group, and what they and their parts may cost there.

Every question, every matrix, every kind of metric, all small. What costs more than its limit is a regression on every
GPU; what costs much less wants a new limit (`python -m tests.device.table` prints what there is).
"""

from typing import NamedTuple

MLP = "builtin:mlp(depth=3,width=5)"
OWN = "tests/gpu_models.py"
WIDE = f"{OWN}:wide(inputs=90,width=80,samples=8)"  # too large for one matrix
GPT = "builtin:gpt(width={width},layers=1,heads=2,vocabulary=16,context=8,parametrization='mup')"

WORDS = "builtin:gpt(width=8,layers=1,heads=2,vocabulary=16,context=8)"


class Limit(NamedTuple):
    """At most so many.

    Attributes:
        launches: Of kernels.
        waits: Of the host for the device.
        uploads: Copies to the device, and indices that lie on the host.
        before: How many it took before anything was made for GPUs, where that is known.
    """

    launches: int
    waits: int
    uploads: int
    before: str = ""


LINES: dict[str, dict[str, Limit]] = {
    "commands": {
        f"diag-share {MLP}": Limit(1200, 94, 23),
        f"diag-share {MLP} --rows 20": Limit(780, 84, 12),
        f"eigs {MLP}": Limit(1000, 140, 13),
        f"spectrum {MLP}": Limit(930, 90, 12),
        f"spectrum {MLP} --operator ggn": Limit(610, 63, 9),
        f"spectrum {MLP} --operator fisher --loss ce": Limit(660, 65, 9),
        f"bounds {MLP}": Limit(6500, 240, 93),
        f"blocks {MLP}": Limit(1800, 150, 18),
        f"blocks {MLP} --probes 8": Limit(1100, 140, 34),
        f"blocks {MLP} --by layer": Limit(870, 90, 12),
        f"blocks {MLP} --by neuron --probes 6": Limit(2800, 170, 93),
        f"forward {MLP} --seeds 3": Limit(460, 112, 35),
        "forward --depth 4 --width 6 --seeds 50": Limit(160, 5, 13),
        "forward --depth 3 --width 6 --seeds 50 --activation tanh --solve median --init he_normal": Limit(140, 7, 16),
        "vanishing --depth 3 --width 4 --seeds 20 --hessian-seeds 5 --batch 3": Limit(710, 18, 23),
        "vanishing builtin:mlp(depth={depth},width=4) --depth 3 --seeds 3 --batch 3": Limit(3000, 360, 78),
    },
    "metrics": {
        f"eigs {MLP} --metric adam": Limit(1300, 160, 15),
        f"spectrum {MLP} --metric rmsprop(lr=1e-3)": Limit(1200, 110, 14),
        f"spectrum {MLP} --operator ggn --metric adam": Limit(830, 81, 11),
        f"bounds {MLP} --metric adam(lr=0.01,weight_decay=0.1)": Limit(6400, 260, 91),
        f"diag-share {MLP} --metric sgd(lr=0.1,momentum=0.9)": Limit(1400, 120, 25),
        f"sharpness {OWN}:mlp --optimizer adam(lr=0.01) --dtype float64": Limit(5100, 330, 92),
        f"sharpness {MLP} --optimizer muon(lr=0.01)": Limit(3500, 280, 69),
        f"precondition {MLP}": Limit(14500, 1010, 21),
        f"trust-radius {OWN}:mlp --dtype float64": Limit(11000, 970, 29),
    },
    "optimizers": {
        f"check {OWN}:mlp --optimizer sgd --lr 0.1 --try --dtype float64": Limit(3900, 270, 31),
        f"escape {MLP} --seeds 1 --budget 8 --init lecun --optimizer adam --optimizer tr-rmsprop --optimizer lodo": Limit(
            6300, 550, 50
        ),
        f"escape {MLP} --seeds 1 --budget 8 --optimizer sgd(lr=0.1) --optimizer gn-cg --optimizer sfn --landscape": Limit(
            13500, 1400, 86
        ),
        "transfer builtin:mlp(width={width},depth=3,in_features=8,out_features=4) --widths 4,8 --seeds 2 --steps 2": Limit(
            6600, 660, 370
        ),
        f"transfer {GPT} --widths 4,8 --seeds 2 --steps 2 --optimizer adam": Limit(49000, 1600, 960),
    },
    "models": {
        f"eigs {WIDE} --highest 2 --lowest 1 --tol 1e-6 --dtype float64": Limit(5300, 220, 66),
        f"spectrum {WIDE} --probes 2 --steps 10": Limit(3000, 150, 49),
        f"spectrum {WIDE} --operator ggn --probes 2 --steps 10 --dtype float64": Limit(2600, 160, 50),
        f"eigs {OWN}:mlp --shard --dtype float64": Limit(5600, 370, 60),
        f"spectrum {WORDS} --shard --operator ggn --probes 2 --steps 3": Limit(12000, 240, 70),
        f"diag-share {OWN}:weighted --dtype float64": Limit(2000, 130, 26),
        f"diag-share {OWN}:lenet --rows 8 --dtype float64": Limit(1500, 120, 16),
        f"eigs {OWN}:batch_norm --train-mode --dtype float64": Limit(2100, 220, 19),
        f"diag-share {OWN}:dropout --train-mode --dtype float64": Limit(1300, 140, 19),
        f"diag-share {OWN}:transformer --rows 8 --dtype float64": Limit(6600, 310, 36),
    },
}
PARTS = {
    "Hessian product, 3-layer MLP, 1 vectors": Limit(52, 1, 0),
    "Hessian product, 3-layer MLP, 8 vectors": Limit(67, 1, 0),
    "Gauss-Newton product, 3-layer MLP, 1 vectors": Limit(58, 2, 0),
    "Gauss-Newton product, 3-layer MLP, 8 vectors": Limit(65, 2, 0),
    "Hessian product, LeNet, 1 vectors": Limit(82, 1, 0),
    "Hessian product, LeNet, 8 vectors": Limit(120, 1, 0, "133 launches"),
    "Hessian product, 128 layers, 1 vectors": Limit(1417, 1, 0, "2,181 launches"),
    "Hessian product, 128 layers, 8 vectors": Limit(2307, 1, 0, "3,071 launches"),
    "look at the point, 32 layers": Limit(3700, 60, 1, "4,455 launches, 249 waits"),
    "the same by pieces, 3-layer MLP, 1 vectors": Limit(89, 1, 0),
    "the same by pieces, 3-layer MLP, 8 vectors": Limit(310, 1, 0),
    "the same by pieces, GPT of 1 block, 1 vectors": Limit(620, 1, 0),
    "the same by pieces, GPT of 1 block, 8 vectors": Limit(3800, 1, 0),
    "step of extreme_eigenpairs, block 1": Limit(13, 1, 1),
    "step of extreme_eigenpairs, block 2": Limit(13, 1, 1, "27 launches, 5.2 waits"),
    "step of spectral_density, 4 probes": Limit(15, 1, 1, "6 waits"),
    "scaling of Gershgorin's discs": Limit(620, 50, 50, "1,200 waits"),
    "layer of networks' Hessian norms": Limit(65, 0, 1, "106 launches"),
    "network of `vanishing`, 128 layers": Limit(63, 0, 1, "4,500 launches"),
    "check of them by 256 products": Limit(310, 3, 13),
    "step of tr-uniform": Limit(268, 22, 0),
    "step of tr-rmsprop": Limit(234, 22, 1),
    "step of tr-adagrad": Limit(252, 22, 1),
    "step of newton-cg": Limit(247, 22, 0),
    "step of gn-cg": Limit(659, 56, 0),
    "step of cubic": Limit(403, 25, 1),
    "step of sfn": Limit(445, 15, 10),
    "step of lodo": Limit(215, 5, 0),
    "look of sharpness along a step": Limit(10, 1, 0),
}
