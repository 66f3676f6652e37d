"""The files of a training run.

- `claim`: allows one process and one config per workdir
- `network`: loads a trained network from a workdir or from a file of weights
- `checkpoint`: states, saved with Orbax, that survive kill -9 and flipped bits
- `storage`: turns the errors of Orbax and TensorStore into those of the system or of the user
- `sums`: the list of hashes that reveals damage
- `journal`: one line of JSON for each logged step; TensorBoard
- `plots`: draws curves from journals
"""
