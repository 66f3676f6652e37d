"""Two-stage training.

- `loop`: the run, from wherever its workdir stands
- `plan`: what a config names, and the one desk where its numbers are checked
- `step`, `micro_batches`: one update, compiled once for each stage
- `terms`, `adversary`: the terms of Eq. 26 and the discriminator, made from a config
- `state`, `optim`: what is carried from step to step, and the learning rate
- `finite`, `validation`: what is refused, and what is measured on the way
"""
