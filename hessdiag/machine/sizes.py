"""Bytes for people."""


def gib(size: float, places: int | None = None) -> str:
    """Bytes in MiB or GiB, as exactly as matters; in GiB alone with so many `places`.

    >>> gib(3.2e9), gib(5e6), gib(2e11), gib(5e8, 1)
    ('3.0 GiB', '5 MiB', '186 GiB', '0.5 GiB')
    """
    if places is None and size < 2**30:
        return f"{size / 2**20:.0f} MiB"
    if places is None:
        places = 1 if size < 100 * 2**30 else 0
    return f"{size / 2**30:,.{places}f} GiB"
