"""Evaluating the objective of a batch: kernels, buffers, random numbers and parameters, and all of it undone."""
