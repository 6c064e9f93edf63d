import pytest
import torch

from hessdiag.machine import memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("saved", "vector", "free", "expected"),
    [
        (100, 100, 2**40, 64),  # small: as many as help
        (7_000_000, 60_000, 2**40, 32),  # a pass would write more than pays
        (100, 3_200_000, 2**40, 1),  # vectors out of cache
        (1_000_000, 100_000, 64 * 2**20, 4),  # little memory
        (10**9, 10**9, 2**20, 1),  # never less than one
    ],
)
def test_vectors_per_pass(saved, vector, free, expected, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert memory.chunk_size(saved, vector, CPU) == expected


@pytest.mark.parametrize(
    ("saved", "vector", "free", "device", "expected"),
    [
        (100, 25, 4 * 400 * 8, "cuda", 8),  # a quarter of what is free holds eight times 3 saved + 4 vectors
        (100, 25, 4 * 400 * 8 - 1, "cuda", 4),
        (0, 0, 4 * 64, "cuda", 64),
        (0, 0, 4 * 63, "cuda", 32),
        (10**9, 3_000_000, 2**50, "cuda", 512),  # a GPU's limits are its memory's alone
        (100, 2 * 2**20, 2**50, "cpu", 64),
        (100, 2 * 2**20 + 1, 2**50, "cpu", 1),
        (2**25, 100, 2**50, "cpu", 8),
        (2**25 + 1, 100, 2**50, "cpu", 4),
        (0, 100, 2**50, "cpu", 64),
    ],
)
def test_limits_of_a_chunk_to_the_byte(saved, vector, free, device, expected, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert memory.chunk_size(saved, vector, torch.device(device)) == expected


def test_free_memory_is_some_of_the_machine():
    assert 2**20 < memory.free_bytes(CPU) < 2**45


MEMINFO = "MemTotal:       4000 kB\nMemFree:         500 kB\nMemAvailable:   1000 kB\nBuffers:  7 kB\n"
LIMIT, USED = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/proc/meminfo": MEMINFO}, 1_024_000),
        ({"/proc/meminfo": MEMINFO, LIMIT: "max\n", USED: "5\n"}, 1_024_000),
        ({"/proc/meminfo": MEMINFO, LIMIT: "700000\n", USED: "300000\n"}, 400_000),
        ({"/proc/meminfo": MEMINFO, LIMIT: "7000000\n", USED: "300000\n"}, 1_024_000),
        ({"/proc/meminfo": MEMINFO, LIMIT: "700000\n", USED: "700001\n"}, 0),
        ({"/proc/meminfo": "MemTotal: 4000 kB\n"}, 5 * 4096 // 2),  # an old kernel: half of all there is
        ({}, 5 * 4096 // 2),
        ({LIMIT: "9000", USED: "1000"}, 8000),
    ],
)
def test_free_memory_by_what_the_system_says(files, expected, monkeypatch):
    def read_text(path):
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(memory.Path, "read_text", read_text)
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 5, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert memory.free_bytes(CPU) == expected


@pytest.mark.parametrize(
    ("device", "gpus", "processes", "expected"),
    [
        ("cuda:0", 1, "", 1000),
        ("cuda:0", 1, "4", 250),
        ("cuda:1", 2, "4", 500),
        ("cuda:1", 4, "4", 1000),
        ("cuda:1", 4, "5", 500),
        ("cpu", 4, "4", 256_000),
        ("cpu", 0, "", 1_024_000),
    ],
)
def test_processes_of_one_machine_share_what_is_free(monkeypatch, device, gpus, processes, expected):
    def read_text(path):
        if str(path) != "/proc/meminfo":
            raise FileNotFoundError(path)
        return MEMINFO

    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    monkeypatch.setattr(memory.Path, "read_text", read_text)
    monkeypatch.setattr(memory, "_left_of_addresses", list)
    for name, answer in (("device_count", gpus), ("mem_get_info", (1000, 5000))):
        monkeypatch.setattr(torch.cuda, name, lambda *device, answer=answer: answer)
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    assert memory.free_bytes(torch.device(device)) == expected


def test_free_memory_where_the_system_says_nothing(monkeypatch):
    def read_text(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(memory.Path, "read_text", read_text)
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.free_bytes(CPU) == 2**32


def _segment(total, blocks, *, device=3, pool=(0, 0), expandable=False):
    allocated = sum(size for size, state in blocks if state != "inactive")
    return {
        "device": device,
        "segment_pool_id": pool,
        "total_size": total,
        "allocated_size": allocated,
        "active_size": allocated,
        "is_expandable": expandable,
        "blocks": [{"size": size, "state": state} for size, state in blocks],
    }


M = 2**20


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([_segment(300, [(300, "inactive")])], 300),
        ([_segment(300, [(30, "active_allocated"), (270, "inactive")])], 0),  # a fragment
        ([_segment(300, [(300, "inactive")], device=2)], 0),
        ([_segment(300, [(300, "inactive")], pool=(0, 7))], 0),  # of a recording
        ([_segment(300, [(300, "active_pending_free")])], 0),
        (
            [_segment(90 * M, [(M, "active_allocated"), (80 * M, "inactive"), (9 * M, "inactive")], expandable=True)],
            80 * M,
        ),
        ([_segment(5, [(5, "inactive")]), _segment(7, [(7, "inactive")])], 12),
    ],
)
def test_what_is_cached_on_a_gpu_is_free_unless_it_is_a_fragment(monkeypatch, segments, expected):
    def of(number):
        return lambda device: number if device.index == 3 else pytest.fail("another device")

    monkeypatch.setattr(torch.cuda, "mem_get_info", of((1000, 5000)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", of(300))
    monkeypatch.setattr(torch.cuda, "memory_allocated", of(70))
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    assert memory.free_bytes(torch.device("cuda", 3)) == 1000 + expected
    monkeypatch.setattr(torch.cuda, "memory_allocated", of(300))  # nothing is cached
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: pytest.fail("asked for nothing"))
    assert memory.free_bytes(torch.device("cuda", 3)) == 1000


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        (
            {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
            {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
        ),
        ({"PYTORCH_ALLOC_CONF": ""}, {"PYTORCH_ALLOC_CONF": ""}),
    ],
)
def test_segments_may_grow_unless_the_user_says_otherwise(monkeypatch, given, expected):
    from hessdiag import __main__

    monkeypatch.setattr(__main__.os, "environ", dict(given))
    __main__._let_segments_grow()
    assert __main__.os.environ == expected


@pytest.mark.parametrize(
    ("size", "given", "expected"),
    [
        (1, {}, "1"),
        (1, {"THP_MEM_ALLOC_ENABLE": "0"}, "0"),
        (2, {}, None),  # whose blocks are smaller, and would take more than they need
    ],
)
def test_one_process_asks_for_large_pages_unless_the_user_says_otherwise(monkeypatch, size, given, expected):
    monkeypatch.setattr(memory.os, "environ", dict(given))
    monkeypatch.setattr(memory, "ranks", lambda: (0, size))
    memory.apart()
    assert memory.os.environ.get("THP_MEM_ALLOC_ENABLE") == expected


def test_running_out_of_memory_halves_the_chunk(monkeypatch):
    from torch import nn

    from hessdiag.curvature.chains.layer_chain import LayerChain
    from hessdiag.curvature.hessian import HessianOperator
    from hessdiag.problem.problem import Problem

    problem = Problem(
        nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)),
        data=[(torch.ones(4, 2), torch.ones(4, 1))],
        loss="mse",
    )
    expected = HessianOperator(problem).rows(torch.arange(13))
    operator = HessianOperator(problem)
    computed = LayerChain.products

    def scarce(self, vectors, layer):
        if len(vectors) > 4:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")
        return computed(self, vectors, layer)

    monkeypatch.setattr(LayerChain, "products", scarce)
    torch.testing.assert_close(operator.rows(torch.arange(13)), expected)
    assert operator.chunk == 4
    assert "4 vectors a pass" in operator.engine
