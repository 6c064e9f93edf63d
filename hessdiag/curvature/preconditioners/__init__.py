"""Preconditioners of a problem's curvature: each a positive semidefinite matrix that is cheap to hold and to invert."""
