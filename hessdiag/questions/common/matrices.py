"""What is known of a loss as a function of what it receives, of which the signs of Gauss-Newton matrices are a matter.

Of the standard library alone: results hold it.
"""

from typing import Literal

LossInOutput = Literal["convex", "linear", "unknown"]
