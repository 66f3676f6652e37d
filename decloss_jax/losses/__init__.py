"""The mathematics of training: pure functions; networks are handed in as functions."""
