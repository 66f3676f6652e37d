"""The loss terms of training (Eq. 12-26), as pure functions; networks are passed in as functions.

decloss.py        DECLoss of two batches of images: detail (Eq. 12-17), mini-patches, contrast (Eq. 18-23)
contrast.py       the contrast of mini-patches, as the paper states it and for large P (Eq. 18-23)
strips.py         value and gradient of that contrast in memory linear in P
similarity.py     unit vectors for the cosines (Eq. 18, 19), the exact mask (Eq. 20)
pixel.py          L1 (Eq. 24)
perceptual.py     distance of features (Eq. 25)
adversarial.py    GAN and relativistic GAN
ranking.py        RankSRGAN's losses
phase.py          against lattices with the period of the upsampling; ours
objective.py      the weighted sum (Eq. 26)
"""
