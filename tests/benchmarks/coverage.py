"""Coverage of the intervals of `spectrum` over eight spectra: `python -m tests.benchmarks.coverage`, in minutes.

Prints the rows of the table in docs/concepts/errors.md: least, mean and largest over spectra, raw and deflated.
"""

import numpy as np

from tests.linalg.prescribed import rates, spectra, trace_rate


def cell(found):
    """Least, mean and largest."""
    found = np.array(found)
    found = found[~np.isnan(found)]
    return f"{found.min():.1f} / {found.mean():.1f} / {found.max():.1f}"


def main():
    rows = {}
    for probes in (10, 30):
        cells = [rates(v, probes, deflated=d, pooled=400 * probes) for v in spectra().values() for d in (False, True)]
        for name in cells[0]:
            rows.setdefault(name, []).append(cell([found[name] for found in cells]))
        traces = [trace_rate(v, 4 * probes, deflated=d) for v in spectra().values() for d in (False, True)]
        rows.setdefault("trace", []).append(cell(traces))
        print(f"{probes} probes:", *(f"| {name} | {' | '.join(columns)} |" for name, columns in rows.items()), sep="\n")


if __name__ == "__main__":
    main()
