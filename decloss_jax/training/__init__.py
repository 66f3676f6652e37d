"""Two-stage training.

- `loop`: runs both stages, from the beginning or from the last checkpoint
- `plan`: checks a config and builds everything it names
- `step`, `micro_batches`: one update, compiled once per stage
- `terms`, `adversary`: the terms of Eq. 26 and the discriminator, built from a config
- `state`, `optim`: the state of training, Adam and the learning rate
- `finite`: refuses values that are not finite
- `validation`: PSNR and sample strips during training
"""
