"""Several ranks as forks of a test's process: no torch is imported again."""

import fcntl
import io
import multiprocessing.connection
import os
import pickle
import socket

import torch
import torch.distributed as dist

PATIENCE = 300  # seconds, on a machine that does much else


def once(tmp_path_factory, name, work):
    """What `work()` returns, computed by one of the workers that share a run of tests: ranks take a minute."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    kept = folder / f"{name}.pickle"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(work()))
    return pickle.loads(kept.read_bytes())


def on_ranks(size, work):
    """What `work()` returns in each of `size` processes that gloo connects; with one, here. No graphs, for it is sent."""
    if size == 1:
        return [work()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    workers = [
        context.Process(target=_rank, args=(work, rank, size, port, pipes[rank][1]), daemon=True)
        for rank in range(size)
    ]
    for worker in workers:
        worker.start()
    try:
        found = [_answer(pipe, worker) for (pipe, _), worker in zip(pipes, workers, strict=True)]
    finally:
        for worker in workers:
            worker.join(5)
            worker.kill()
    failed = [(rank, one) for rank, one in enumerate(found) if isinstance(one, str)]
    assert not failed, "\n".join(f"rank {rank}: {text}" for rank, text in failed)
    return [torch.load(io.BytesIO(one)) for one in found]


def _answer(pipe, worker):
    """What a rank sent, or a text of why it has not: of one that was killed at once."""
    multiprocessing.connection.wait([pipe, worker.sentinel], PATIENCE)
    if pipe.poll():
        return pipe.recv()
    worker.join(0)
    return "it has not answered" if worker.exitcode is None else f"it ended without an answer, with {worker.exitcode}"


def _rank(work, rank, size, port, pipe):
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    try:
        buffer = io.BytesIO()
        torch.save(work(), buffer)
        pipe.send(buffer.getvalue())  # tensors would be sent as files, which end with this process
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
