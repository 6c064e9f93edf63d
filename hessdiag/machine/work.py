"""Work as it is counted before it is timed: products, and the arithmetic on vectors beside them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """An amount of work that takes time.

    Attributes:
        products: With single vectors.
        vectors: That arithmetic beside the products reads or writes.

    >>> Work(2, 10) + 3 * Work(1, 4)
    Work(products=5, vectors=22)
    """

    products: float = 0.0
    vectors: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.products + other.products, self.vectors + other.vectors)

    def __rmul__(self, times: float) -> "Work":
        return Work(times * self.products, times * self.vectors)
