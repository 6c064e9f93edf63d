"""One question each, answered with a frozen dataclass: measured numbers, theory, checks and a verdict."""
