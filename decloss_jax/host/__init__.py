"""The machine under the program.

- `console`: lines, progress and tables for people
- `files`: atomic writes, hashes, locks
- `parallel`: the mesh over all devices, and agreement between processes
- `devices`: which devices there are, and a GPU that lies idle
- `processes`: how the processes of a run find each other and notice a death
"""
