"""Measuring methods on data sets: what evaluate.py does."""

from decloss_jax.evaluation.run import run

__all__ = ["run"]
