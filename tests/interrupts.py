"""Progress listeners that interrupt what they listen to."""


def ends_after(calls):
    """A keyboard interrupt after so many calls."""
    left = [calls]

    def progress(done, total, what):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return progress
