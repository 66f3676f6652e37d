"""The command line: how programs start, fail and end.

- `scripts`: train.py and evaluate.py
- `cli`: python -m decloss_jax COMMAND
"""
