"""Two processes on one machine, started as users start them, against one."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

SCRIPT = """
import torch
from torch import nn


def mlp():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return model, [(torch.randn(7, 4).double(), torch.arange(7) % 3), (torch.randn(4, 4).double(), torch.arange(4) % 3)], "ce"


def conv():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.GELU(), nn.Flatten(), nn.Unflatten(1, (1, 12)), nn.Conv1d(1, 2, 12)).double()
    return model, [(torch.randn(5, 2, 6).double(), torch.randn(5, 2, 1).double())], "mse"


class Graph(nn.Module):  # edges come first, and connect all nodes: no part of them is a graph
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 3)

    def forward(self, edges, x):
        h = torch.tanh(self.a(x))
        return h.index_add(0, edges[1], h[edges[0]])


def graph():
    torch.manual_seed(0)
    edges = torch.tensor([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]])
    return Graph().double(), [((edges, torch.randn(6, 2).double()), torch.arange(6) % 3)], "ce"


def slow(model, batch):
    import time
    time.sleep(0.2)
    return model(batch[0]).square().mean()
"""

PRODUCTS = """
import json, sys
import torch
sys.path.insert(0, ".")
from net import conv, graph, mlp
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.shared import share
from hessdiag.machine.ranks import ranks
from hessdiag.problem.problem import Problem

torch.manual_seed(1)
norm = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Tanh()).double()
statistics = Problem(norm, [(torch.linspace(-1, 1, 24).reshape(6, 4).double(), torch.ones(6, 3).double())], "mse", train_mode=True)
model, data, _ = mlp()
summed = Problem(model, data, torch.nn.CrossEntropyLoss(reduction="sum"))
ignored = Problem(model, [(data[0][0], torch.tensor([-100, -100, -100, 0, 1, 2, 0]))], "ce")  # nothing for the first of two
cases = [HessianOperator(problem) for problem in (Problem(*conv()), Problem(*mlp()), summed, ignored, statistics)]
cases += [GaussNewtonOperator(problem) for problem in (Problem(*conv()), Problem(*mlp()), summed, ignored, statistics)]
cases += [HessianOperator(Problem(*graph())), GaussNewtonOperator(Problem(*graph()))]
cases += [FisherOperator(Problem(*mlp())), FisherOperator(Problem(*mlp()), empirical=True)]
found = []
for operator in map(share, cases):
    v = torch.linspace(-1, 1, operator.shape[0], dtype=torch.float64)
    found.append([type(operator).__name__, (operator @ v).tolist(), (operator @ torch.stack([v, v.cos()], 1)).tolist()])
if ranks()[0] == 0:
    json.dump(found, open(sys.argv[1], "w"))
"""

SPECTRA = """
import json, sys
import torch
from torch import nn
import hessdiag
from hessdiag.machine.ranks import ranks
from hessdiag.questions.bounds import measure as bounds_module

bounds_module.DENSE_UP_TO, bounds_module.EXACT_UP_TO = 100, 1_000  # a sketch, of a problem that is small
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(24, 48), nn.Tanh(), nn.Linear(48, 20), nn.Tanh(), nn.Linear(20, 3)).double()
problem = hessdiag.Problem(model, data=[(torch.randn(9, 24).double(), torch.arange(9) % 3)], loss="ce")
eigs = hessdiag.eigs(problem, lowest=2, highest=3)
spectrum = hessdiag.spectrum(problem, probes=2, steps=12)
ggn, fisher = (hessdiag.spectrum(problem, probes=2, steps=12, operator=name) for name in ("ggn", "fisher"))
bounds = hessdiag.bounds(problem)
blocks = hessdiag.blocks(problem, probes=4)
found = {
    "eigs": [pair.eigenvalue for pair in (*eigs.lowest, *eigs.highest)] + [eigs.gradient_curvature],
    "spectrum": [spectrum.trace, spectrum.trace_stderr, spectrum.frobenius, *spectrum.density.values[::20]],
    "ggn": [ggn.trace, ggn.trace_stderr, ggn.frobenius, ggn.highest, *ggn.density.values[::20]],
    "fisher": [fisher.trace, fisher.frobenius, fisher.highest],
    "bounds": [*bounds.gershgorin, *bounds.brauer, *bounds.measured],
    "blocks": [number for row in blocks.frobenius for number in row] + list(blocks.trace),
    "engines": [found.engine for found in (eigs, spectrum, ggn, fisher, bounds)],
}
if ranks()[0] == 0:
    json.dump(found, open(sys.argv[1], "w"))
"""


CHUNKS = """
import json, sys
import torch
from torch import nn
sys.path.insert(0, ".")
from net import mlp
import hessdiag
from hessdiag.machine import memory
from hessdiag.machine.ranks import ranks
from hessdiag.questions.diag_share import rows as diag_share_rows

memory.LARGEST_CHUNK, diag_share_rows.LARGEST_PORTION = 4 - 3 * ranks()[0], 0
torch.manual_seed(0)
model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
data = [(torch.randn(5, 2, 6).double(), torch.arange(5) % 2)]
resume = sys.argv[2] if len(sys.argv) > 2 else None
neurons = hessdiag.diag_share(hessdiag.Problem(model, data, "ce"), resume=resume)
sample = hessdiag.diag_share(hessdiag.Problem(*mlp()), rows=20)
if ranks()[0] == 0:
    json.dump([json.loads(found.to_json())["result"] for found in (neurons, sample)], open(sys.argv[1], "w"))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(SCRIPT)
    (tmp_path / "products.py").write_text(PRODUCTS)
    (tmp_path / "spectra.py").write_text(SPECTRA)
    (tmp_path / "chunks.py").write_text(CHUNKS)
    return tmp_path


@pytest.fixture(scope="module")
def forked(programs):
    """Start torchrun with processes that have imported torch."""
    launch = [programs / "python", "-m", "torch.distributed.run", "--standalone", "--no-python"]

    def run(folder, processes, program, *words):
        command = [*launch, "--nproc-per-node", str(processes), programs / program, *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)

    return run


def _numbers(value):
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _numbers(value[key])
    elif isinstance(value, list):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize(
    "command",
    [
        "diag-share net.py:mlp",
        "diag-share net.py:conv",
        "vanishing --depth 4 --width 6 --seeds 20 --hessian-seeds 7",
        "forward --depth 5 --width 80 --seeds 90 --solve median",
        "forward net.py:conv --seeds 5 --resume kept",
    ],
)
def test_the_same_answer_on_one_and_two_ranks(folder, command, forked):
    runs = []
    for processes in (1, 2):
        words = command.replace("kept", f"kept-{processes}").split()
        runs.append(forked(folder, processes, "hessdiag", *words, "--json", "--no-progress"))
    assert [run.returncode for run in runs] == [0, 0], runs[1].stderr
    one, two = (json.loads(run.stdout)["result"] for run in runs)
    assert list(_numbers(one)) == pytest.approx(list(_numbers(two)), rel=1e-10, abs=1e-14, nan_ok=True)


def test_products_split_samples_where_they_can(folder, forked):
    found = []
    for processes in (1, 2):
        run = forked(folder, processes, "python", "products.py", f"{processes}.json")
        assert run.returncode == 0, run.stderr
        found.append(json.loads((folder / f"{processes}.json").read_text()))
    split = ["SharedOperator"] * 4
    whole = ["HessianOperator", "GaussNewtonOperator"]  # batch statistics, and a graph
    assert [case[0] for case in found[1]] == [*split, whole[0], *split, whole[1], *whole, *split[:2]]
    for one, two in zip(*found, strict=True):
        assert list(_numbers(two)) == pytest.approx(list(_numbers(one)), rel=1e-10, abs=1e-13)


def test_spectra_are_the_same_on_one_and_two_ranks(folder, forked):
    found = []
    for processes in (1, 2):
        run = forked(folder, processes, "python", "spectra.py", f"{processes}.json")
        assert run.returncode == 0, run.stderr
        found.append(json.loads((folder / f"{processes}.json").read_text()))
    one, two = found
    assert all("samples split over 2 processes" in engine for engine in two.pop("engines"))
    del one["engines"]
    for name, numbers in one.items():
        assert two[name] == pytest.approx(numbers, rel=1e-10, abs=1e-13), name


@pytest.mark.parametrize("resume", [[], ["kept"]])
def test_ranks_with_unlike_memory_divide_the_same_rows(folder, resume, forked):
    found = []
    for processes in (1, 2):
        run = forked(
            folder, processes, "python", "chunks.py", f"{processes}.json", *(f"{name}-{processes}" for name in resume)
        )
        assert run.returncode == 0, run.stderr
        found.append(json.loads((folder / f"{processes}.json").read_text()))
    assert "neuron space" in found[0][0]["engine"]
    assert list(_numbers(found[1])) == pytest.approx(list(_numbers(found[0])), rel=1e-10, abs=1e-14, nan_ok=True)


def test_the_connection_is_closed_before_a_process_ends(folder, forked):
    (folder / "leave.py").write_text(
        "import atexit, os, torch, torch.distributed as dist\n"
        "from hessdiag.machine import processes\n"
        "name = 'left' + os.environ['RANK']\n"
        "atexit.register(lambda: open(name, 'w').write(str(dist.is_initialized())))\n"
        "processes.total(torch.ones(1))\n"
        "assert dist.is_initialized()\n"
    )
    assert forked(folder, 2, "python", "leave.py").returncode == 0
    assert [(folder / f"left{rank}").read_text() for rank in range(2)] == ["False", "False"]


def test_a_lost_rank_ends_the_run(folder, forked):
    (folder / "die.py").write_text(
        "import os, signal, sys, time\n"
        "from hessdiag.__main__ import main\n"
        "import threading\n"
        "if os.environ['RANK'] == '1':\n"
        "    threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()\n"
        "sys.argv = ['hessdiag', 'diag-share', 'builtin:convnet', '--objective', 'net.py:slow', '--rows', '500']\n"
        "main()\n"
    )
    started = time.monotonic()
    run = forked(folder, 2, "python", "die.py")
    assert run.returncode != 0
    assert time.monotonic() - started < 40
    assert "rank" in run.stderr.lower()


# What nccl would be asked to do, done by gloo.
STEPS = """
import os, sys, torch, torch.distributed as dist
from hessdiag.machine import processes

processes.backend_for = lambda device: "nccl"
plain, asked = dist.new_group, []
dist.new_group = lambda backend, timeout: asked.append((backend, timeout.total_seconds())) or plain(timeout=timeout)
reduce = dist.all_reduce
def all_reduce(tensor, group):
    if not tensor.is_contiguous():
        raise ValueError("Tensors must be contiguous")
    reduce(tensor, group=group)
dist.all_reduce = all_reduce
rank = int(os.environ["RANK"])
for step in range(3):
    if rank == 1 and step == 2:
        os._exit(9)
    try:
        found = processes.total(torch.ones(2) * (rank + 1)).tolist()
    except Exception as error:
        sys.exit(f"{type(error).__name__} {error}")
    assert found == [3.0, 3.0]
    columns = torch.arange(6.0).view(2, 3).T * (rank + 1)  # as products with several vectors are
    assert processes.total(columns).tolist() == [[0.0, 9.0], [3.0, 12.0], [6.0, 15.0]]
    assert asked == [("nccl", 60.0)]
"""


def test_a_rank_lost_before_a_sum_on_gpus_is_noticed_at_once(folder, programs):
    (folder / "steps.py").write_text(STEPS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    ranks = [
        subprocess.Popen(
            [programs / "python", "steps.py"], cwd=folder, env=meeting | {"RANK": rank}, stderr=subprocess.PIPE
        )
        for rank in "01"
    ]
    said = [rank.communicate(timeout=90)[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 9], said
    assert "LostRankError rank 1 of 2 ended without a word" in said[0]
    assert time.monotonic() - started < 60


# A user's own group of GPUs takes nothing that lies on the host.
OWN_GROUP = """
import torch, torch.distributed as dist
from hessdiag.machine import collectives, processes

dist.init_process_group("gloo")
dist.get_backend_config = lambda: "cuda:nccl"
plain, asked = dist.new_group, []
dist.new_group = lambda backend, timeout: asked.append(backend) or plain(backend=backend, timeout=timeout)
def beside(name):
    inner = getattr(dist, name)
    def refused(*args, group=None, **more):
        if group is None and not any(arg is processes.between_hosts() for arg in args):
            raise RuntimeError("No backend type associated with device type cpu")
        return inner(*args, **({} if group is None else {"group": group}), **more)
    setattr(dist, name, refused)
for name in ("all_reduce", "all_to_all_single", "all_gather_object"):
    beside(name)
rank, _ = processes.ranks()
assert processes.total(torch.ones(2)).tolist() == [2.0, 2.0]
assert processes.total(torch.ones(2**20)).sum() == 2**21
assert processes.merged({rank: str(rank)}, torch.device("cpu")) == ["0", "1"]
assert collectives.gathered(torch.tensor([rank])).tolist() == [0, 1]
assert collectives.scattered(torch.ones(2)).tolist() == [2.0]
assert asked == ["gloo"]
"""


def test_what_lies_on_hosts_goes_beside_a_users_own_group_of_gpus(folder, forked):
    (folder / "own.py").write_text(OWN_GROUP)
    done = forked(folder, 2, "python", "own.py")
    assert done.returncode == 0, done.stderr


def test_a_process_takes_its_gpu_before_it_meets_the_others(monkeypatch):
    from hessdiag.machine import processes

    done = []
    monkeypatch.setattr(processes, "together", lambda: True)
    monkeypatch.setattr(processes, "meet", lambda: done.append("met"))
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    processes.join(torch.device("cuda", 3))
    assert done == [torch.device("cuda", 3), "met"]
    processes.join(torch.device("cpu"))
    assert done[2:] == ["met"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_group_of_gpus_sums(tmp_path):
    script = (
        "import torch, torch.distributed as dist\n"
        "from hessdiag.machine import processes\n"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/meet', rank=0, world_size=1)\n"
        "x = torch.ones(3, device='cuda:0')\n"
        "dist.all_reduce(x, group=processes.between_gpus())\n"
        "assert x.tolist() == [1.0] * 3\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_one_process_needs_no_group():
    from hessdiag.curvature.hessian import HessianOperator
    from hessdiag.curvature.shared import share
    from hessdiag.machine.processes import merged, total
    from hessdiag.problem.problem import Problem

    problem = Problem(nn.Linear(2, 2), data=[(torch.ones(2, 2), torch.ones(2, 2))], loss="mse")
    assert type(share(HessianOperator(problem))) is HessianOperator
    assert merged({1: "b", 0: "a"}, torch.device("cpu")) == ["a", "b"]
    assert torch.equal(total(torch.ones(2)), torch.ones(2))
    assert not torch.distributed.is_initialized()
