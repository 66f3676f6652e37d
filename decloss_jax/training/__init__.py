"""Training in stages.

- `loop`: runs the stages, from the beginning or from the last checkpoint
- `plan`: checks a config and builds everything it names
- `stages`: what the loop calls: starts, updates and evaluates one kind of state
- `step`, `micro_batches`: one update, compiled once per stage
- `outputs`, `terms`, `adversary`: what the network gives, the terms of the objective, the discriminator
- `state`, `optim`: the state of training, Adam and the learning rate
- `finite`: refuses values that are not finite
- `images`, `validation`: batches of crops; PSNR and sample strips during training
- `ranker`, `ranker_stage`, `ranked_windows`: RankSRGAN's Ranker, its run, and what it learns from
"""
