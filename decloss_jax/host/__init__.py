"""The machine under the program.

- `console`: lines and progress bars for people
- `streams`: standard output and error, usable in any state
- `files`: atomic writes, hashes, locks
- `parallel`: the mesh over all devices, and agreement between processes
- `devices`: the names of the devices, a warning about an idle GPU, bit-for-bit results on GPUs
- `processes`: how the processes of a run connect, and notice that one has died
"""
