"""The machine under the program.

- `console`: lines and progress bars for people
- `streams`: standard output and error, usable in any state
- `determinism`: the request for bit-for-bit reproducible results on GPUs
- `files`: atomic writes, hashes, locks
- `parallel`: the mesh over all devices, and agreement between processes
- `devices`: the names of the devices, and a warning about an idle GPU
- `processes`: how the processes of a run connect, and notice that one has died
"""
