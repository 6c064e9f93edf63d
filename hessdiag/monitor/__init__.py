"""Curvature along a training run: looks at the live model, within a share of training's time, that change nothing."""
