"""What a gain's own error means for the ratio that it was to make 1."""

import math


def solved_log_stderr(tried):
    """Of the log of the ratio: what z counts beside the standard error of the fresh networks' median."""
    total, fresh = math.log(tried.achieved) / tried.z, tried.achieved_stderr / tried.achieved
    return math.sqrt(max(total**2 - fresh**2, 0.0))
