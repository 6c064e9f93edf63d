"""Faults, what is done to bring them about, and what comes out: the table of docs/reference/exit-codes.md.

Every row is run by test_faults.py: the quick ones in each test run, the others with HESSDIAG_FUZZ=long.
`python tests/faults/faults.py` prints the table.
"""

from dataclasses import dataclass
from shlex import quote

SHORT = "hessdiag chain --length 3 --seeds 50 --json"
DEEP = "builtin:fcn(depth=12, channels=6, resolution=16)"
LONG = "hessdiag vanishing --depth 128 --json -o r.json"


@dataclass(frozen=True)
class Fault:
    """A row.

    Attributes:
        what: The fault, for readers.
        line: Of bash; `hessdiag` stands for this one.
        code: The exit code.
        stdout: "answer", "interrupted" or "" for nothing.
        file: What `r.json` holds: likewise.
        said: In what stderr says last.
        quick: Whether it is part of every test run.
    """

    what: str
    line: str
    code: int
    stdout: str
    file: str
    said: str
    quick: bool = True


def signalled(number: str, command: str = LONG, after: str = "networks at depths") -> str:
    """A line that sends a signal once the command has said that it begins."""
    return (
        f"{command} > out 2> err & pid=$!; for i in $(seq 600); do grep -q '{after}' err && break; sleep 0.1; done; "
        f"sleep 5; kill -{number} $pid; wait $pid; code=$?; cat out; cat err >&2; exit $code"
    )


FAULTS = (
    Fault("Ctrl-C (SIGINT) while computing", f"set -m; {signalled('INT')}", 130, "interrupted", "interrupted", "interrupted", quick=False),
    Fault("SIGTERM while computing", signalled("TERM"), 143, "interrupted", "interrupted", "terminated", quick=False),
    Fault("SIGHUP while computing", signalled("HUP"), 143, "interrupted", "interrupted", "terminated", quick=False),
    Fault("SIGTERM in the exact part of `blocks`", signalled("TERM", f"hessdiag blocks {quote(DEEP)} --json -o r.json", "whole Hessian"), 143, "interrupted", "interrupted", "terminated", quick=False),
    Fault("Ctrl-C while `bounds` computes rows", f"set -m; {signalled('INT', f'hessdiag bounds {quote(DEEP)} --json -o r.json', 'whole Hessian')}", 130, "interrupted", "interrupted", "interrupted", quick=False),
    Fault("Ctrl-C in the first distribution of `forward`", f"set -m; {signalled('INT', 'hessdiag forward --depth 512 --json -o r.json', 'networks of')}", 130, "interrupted", "interrupted", "interrupted", quick=False),
    Fault("SIGTERM while the weights of `chain` are drawn", signalled("TERM", "hessdiag chain --length 9000 --seeds 100000 --json -o r.json", "chains of"), 143, "interrupted", "interrupted", "terminated", quick=False),
    Fault("`timeout` sends SIGTERM while torch is imported", f"timeout --preserve-status 1 {SHORT.replace('chain --length 3 --seeds 50', 'eigs slow.py:build')}", 143, "", "", "terminated", quick=False),
    Fault("SIGTERM while the script of MODEL runs", signalled("TERM", "hessdiag eigs slow.py:build --json", "slow"), 143, "", "", "terminated", quick=False),
    Fault("`-o` on a full disk", f"{SHORT} -o full.json", 3, "answer", "", "error: cannot write full.json: no space left on device."),
    Fault("the disk fills up while `-o` is written", f"ulimit -f 1; {SHORT} -o r.json", 3, "answer", "", "error: cannot write r.json: file too large."),
    Fault("`-o` into a folder that takes no files", f"{SHORT} -o /proc/r.json", 3, "answer", "", "error: cannot write /proc/r.json: no such file or directory."),
    Fault("`-o` with a name of 300 characters", f"{SHORT} -o {'x' * 300}.json", 2, "", "", "error: cannot write"),
    Fault("`-o` is a named pipe", f"mkfifo p.json; cat p.json > r.json & {SHORT} -o p.json; code=$?; wait; exit $code", 0, "answer", "answer", "Wrote p.json"),
    Fault("`-o` is a link", f"ln -s r.json l.json; {SHORT} -o l.json; test -L l.json", 0, "answer", "answer", "Wrote l.json"),
    Fault("stdout on a full disk, `-o` beside it", f"{SHORT} -o r.json > /dev/full", 3, "", "answer", "error: cannot write to stdout: no space left on device."),
    Fault("stdout is closed", f"{SHORT} -o r.json >&-", 3, "", "answer", "error: cannot write to stdout: bad file descriptor."),
    Fault("stderr is closed", f"{SHORT} -o r.json 2>&-", 0, "answer", "answer", ""),
    Fault("stderr on a full disk", f"{SHORT} -o r.json 2> /dev/full", 0, "answer", "answer", ""),
    Fault("the reader of stdout has gone (`| true`)", f"{SHORT} -o r.json | true; exit ${{PIPESTATUS[0]}}", 0, "", "answer", "Wrote r.json"),
    Fault("`RANK` is left over from another job", f"RANK=3 {SHORT}", 2, "", "", "error: the environment has RANK=3 and no WORLD_SIZE"),
    Fault("`COLUMNS=100000000`", f"COLUMNS=100000000 {SHORT}", 0, "answer", "", ""),
    Fault("`HOME` unset, no folder for temporary files", f"env -u HOME TMPDIR=/nowhere {SHORT} -o r.json", 0, "answer", "answer", "Wrote r.json"),
    Fault("the current folder was deleted", f"mkdir d; cd d; rmdir ../d; {SHORT}", 2, "", "", "error: the current folder was deleted"),
    Fault("a number that memory cannot hold (`--seeds 1000000000`)", "hessdiag chain --seeds 1000000000 --json -o r.json", 3, "", "", "try: --seeds "),
    Fault("`--config /dev/full`", f"{SHORT} --config /dev/full", 2, "", "", "error: "),
)  # fmt: skip

WORDS = {"answer": "complete", "interrupted": "complete up to then, status `interrupted`", "": "nothing"}


def table() -> str:
    """The rows in Markdown."""
    rows = [
        f"| {fault.what} | {fault.code} | {WORDS[fault.stdout]} | {WORDS[fault.file] if _writes(fault) else '–'} |"
        for fault in FAULTS
    ]
    return "\n".join(["| fault | exit code | stdout | file of `-o` |", "|---|---:|---|---|", *rows])


def _writes(fault: Fault) -> bool:
    return " -o " in fault.line


if __name__ == "__main__":
    print(table())
