"""How long the fuzzers run, and from which seed: a short run in every test run, a long one on request.

HESSDIAG_FUZZ=long HESSDIAG_FUZZ_SEED=7 pytest -n 0 tests/fuzz
"""

import os

SEED = int(os.environ.get("HESSDIAG_FUZZ_SEED", "0"))
LONG = os.environ.get("HESSDIAG_FUZZ") == "long"
