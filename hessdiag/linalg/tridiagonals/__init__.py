"""Tridiagonal matrices of Lanczos, and how orthogonal the vectors behind them are and have to be."""
