"""Tables for docs/performance.md: `python docs/gpu_table.py FILE.jsonl`, which `python -m tests.gpu_check -o` wrote."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def tables(lines: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Rates, cases beside their limits, products in gradients, what cases are made of, and what was wrong."""
    lines = list(lines)
    if any(line.get("rehearsal") for line in lines):
        yield "A rehearsal on small networks: these numbers say nothing.\n"
    by_part: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_part.setdefault(line["part"], []).append(line)
    named = {part: [line for line in found if "name" in line] for part, found in by_part.items()}
    for line in {line["name"]: line for line in named.get("ceilings", [])}.values():
        rate = f"{line['tflops']:.1f} Tflop/s" if "tflops" in line else f"{line['TB/s']:.2f} TB/s"
        yield f"- {line['name']}: {rate}"
    races = named.get("races", [])
    if cases := [line for line in races if "limit" in line]:
        yield "\n| case | seconds | limit of an H100 | times that | goal |\n|---|---:|---:|---:|---:|"
        for line in cases:
            numbers = f"{line['seconds']:.3g} | {line['limit']:.2g} | {line['times']:.3g} | {line['goal']:g}"
            yield f"| {line['name']} | {numbers} |"
    if products := [line for line in races if "gradients" in line]:
        yield "\n| product | ms | gradients, each vector |\n|---|---:|---:|"
        for line in products:
            yield f"| {line['name']} | {line['seconds'] * 1e3:.3g} | {line['gradients']:.2g} |"
    if made := [line for line in named.get("where", []) if "kernels" in line]:
        yield "\n| case | kernels | busy, s | idle, s | waits most at |\n|---|---:|---:|---:|---|"
        for line in made:
            places = ", ".join(f"`{place}` ({count})" for place, count in line["waits"][:2])
            times = f"{line.get('busy', 0.0):.3g} | {line.get('idle', 0.0):.3g}"
            yield f"| {line['name']} | {line['kernels']:,} | {times} | {places} |"
    if curves := named.get("chunks", []):
        yield "\n| case | at a time | seconds |\n|---|---:|---:|"
        for line in curves:
            yield f"| {line['name']} | {line.get('chunk', line.get('panel numbers')):,} | {line['seconds']:.3g} |"
    wrong = [line for found in by_part.values() for line in found if line.get("wrong")]
    yield f"\n{len(wrong)} findings want mending."
    yield from (f"- {line['part']}: {line.get('name', '')} {line.get('failed', '')}" for line in wrong)


def main() -> None:
    """Print them."""
    for row in tables(map(json.loads, Path(sys.argv[1]).read_text().splitlines())):
        print(row)


if __name__ == "__main__":
    main()
