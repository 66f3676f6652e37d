"""What a run leaves on disk.

- `claim`: one process, one config in a workdir
- `network`: a trained network, from a workdir or from a file of weights
- `checkpoint`: states that survive kill -9 and flipped bits, by Orbax
- `sums`: the list of hashes by which damage is found
- `journal`: one line of JSON for each logged step; TensorBoard
- `plots`: curves drawn from journals
"""
