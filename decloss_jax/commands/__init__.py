"""The command line.

- `program`: how every program starts, fails and ends
- `cli`: the table of the commands of python -m decloss_jax
- `networks`, `runs`: the commands
"""
