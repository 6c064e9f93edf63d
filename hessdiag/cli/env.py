"""`hessdiag env`: what a bug report needs to say about the machine."""

import json
import platform
from typing import Any

import click

from hessdiag.cli.help import Command
from hessdiag.cli.output import write
from hessdiag.questions.common.provenance import versions


@click.command("env", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> int:
    """Versions, devices, threads and memory. Paste it into a bug report."""
    facts = environment()
    if as_json:
        write(json.dumps(facts, indent=2) + "\n")
        return 0
    width = max(map(len, facts))
    rows = [(name, ", ".join(value) if isinstance(value, list) else str(value)) for name, value in facts.items()]
    write("".join(f"{name:<{width}}  {value}\n" for name, value in rows))
    return 0


def environment() -> dict[str, Any]:
    """The facts by name: an allow-list, with no environment variable and no path in it."""
    import torch

    from hessdiag.machine.memory import free_bytes

    cuda = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return {
        **versions(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "devices": ["cpu", *cuda],
        "threads": torch.get_num_threads(),
        "free memory (MiB)": free_bytes(torch.device("cpu")) // 2**20,
    }
