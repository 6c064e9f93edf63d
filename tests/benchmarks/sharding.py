"""Memory and time of sharded products beside plain double backward: `python -m tests.benchmarks.sharding [CASE]`.

Peaks are VmHWM above what the imports take, the largest of all ranks: while products are taken, and in the whole life
of a rank, with the model being built whole and cut. Each run is a process of its own.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

# Layers, vocabulary, sequences and their length; bars on the share of one process's memory at 2 and 4 ranks.
CASES = {
    "88M": (12, 4096, 4, 32, {2: 0.40, 4: 0.25}),
    "124M": (12, 50257, 4, 32, {2: 0.45, 4: 0.28}),
    "24.5M": (3, 4096, 16, 64, {}),
}
SLOWER = {1: 1.6, 2: 1.5}  # times one process, of the last


def main() -> None:
    """Run the cases that are named, or all."""
    for name in sys.argv[1:] or CASES:
        one = _run(name, "plain", 1)
        print(f"{name}: one process {one['peak']:.0f} MiB, {one['seconds']:.1f} s a product", flush=True)
        for size in (1, 2, 4):
            found = _run(name, "sharded", size)
            share, bar = found["peak"] / one["peak"], CASES[name][4].get(size)
            text = f"  {size} ranks: {found['peak']:.0f} MiB, {share:.3f} of one"
            text += f" (bar {bar})" if bar else ""
            text += f"; with building {found['life']:.0f} MiB, {found['life'] / one['life']:.3f} of one"
            text += f"; {found['seconds']:.1f} s, {found['seconds'] / one['seconds']:.2f} times one"
            text += f" (bar {SLOWER[size]})" if name == "24.5M" and size in SLOWER else ""
            print(f"{text}; |Hv| differs by {abs(found['norm'] / one['norm'] - 1):.1e}", flush=True)


def _run(name: str, how: str, size: int) -> dict[str, float]:
    """What the ranks of one run measured: the largest peak, and the first rank's time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    environment = os.environ | meeting | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if how == "sharded" and size == 1:  # as the command does before torch takes memory; here a model is built first
        environment["THP_MEM_ALLOC_ENABLE"] = "1"
    command = [sys.executable, "-m", "tests.benchmarks.sharding", "--rank", name, how]
    ranks = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    each = [json.loads(rank.communicate()[0].splitlines()[-1]) for rank in ranks]
    return each[0] | {name: max(rank[name] for rank in each) for name in ("peak", "life")}


def _peak() -> float:
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def rank(name: str, how: str) -> None:
    """One rank: two products with a random vector; the second is timed."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    import hessdiag

    layers, vocabulary, count, length, _ = CASES[name]
    base = _peak()
    torch.manual_seed(0)
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(n_embd=768, n_layer=layers, n_head=12, n_positions=64, vocab_size=vocabulary, **none)
    tokens = torch.randint(0, vocabulary, (count, length))
    plain, building = how == "plain", base
    if plain:
        product = _double_backward(GPT2LMHeadModel(config).eval(), tokens)
    else:
        problem = _sharded(GPT2LMHeadModel, config, tokens)
        building = _peak()
        Path("/proc/self/clear_refs").write_text("5")  # what building it whole took is not what products take
        operator = hessdiag.HessianOperator(problem, check=False)
        generator = torch.Generator().manual_seed(1)
        v = operator.spread.kept(lambda n: torch.randn(n, generator=generator))
        product = partial(operator.__matmul__, v)
    product()
    started = time.perf_counter()
    found = product()
    seconds = time.perf_counter() - started
    square = sum(part.double().square().sum() for part in found.split(2**18))
    norm = float(square if plain else operator.spread.summed(square)) ** 0.5
    peak = _peak()
    life = max(building, peak) - base
    print(json.dumps({"peak": peak - base, "life": life, "seconds": seconds, "norm": norm}))


def _double_backward(model, tokens):
    """Products as they are written without any package: the gradient's graph, differentiated again."""
    import torch

    parameters = [*model.parameters()]
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(sum(item.numel() for item in parameters), generator=generator)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        g = torch.autograd.grad(loss, parameters, create_graph=True)

    def product():
        parts = v.split([item.numel() for item in parameters])
        cotangents = [part.view_as(item) for part, item in zip(parts, parameters, strict=True)]
        return torch.cat(
            [part.reshape(-1) for part in torch.autograd.grad(g, parameters, cotangents, retain_graph=True)]
        )

    return product


def _sharded(kind, config, tokens):
    """A problem of pieces; the whole is let go."""
    import hessdiag

    data = [{"input_ids": tokens, "labels": tokens}]
    return hessdiag.sharded(hessdiag.Problem(kind(config), data=data, loss="output"))


if __name__ == "__main__":
    rank(*sys.argv[2:]) if sys.argv[1:2] == ["--rank"] else main()
