"""Random numbers that are drawn some at a time, and are those that a generator gives at once."""

from collections.abc import Iterator

GROUP = 16  # numbers that torch's normal draws together: other blocks would change what a generator gives


def in_blocks(n: int, block: int) -> Iterator[int]:
    """How many of n numbers to draw at a time: blocks, of which the last is not below a group, or all there is.

    Args:
        n: How many are drawn.
        block: A multiple of `GROUP`.

    >>> list(in_blocks(70, 32)), list(in_blocks(80, 32)), list(in_blocks(3, 32))
    ([32, 38], [32, 32, 16], [3])
    """
    while n > 0:
        count = n if n < block + GROUP else block
        yield count
        n -= count
