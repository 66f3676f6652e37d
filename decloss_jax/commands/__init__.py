"""The command line.

- `program`: how every program starts, fails and ends
- `cli`: the commands of python -m decloss_jax, as a table
- `networks`, `runs`: the commands
"""
