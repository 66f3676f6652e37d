"""Image files in, batches of paired crops out: NumPy, Pillow and Grain.

- `images`: a file as 8-bit RGB, or refused by name
- `pairs`: an HR image and its LR image, given or made by MATLAB's bicubic
- `folder`, `photographs`, `prepared`: where pairs come from; `sources` is the table of them
- `cache`: decode once, memory-map afterwards
- `augment`, `pipeline`: the crops of a step as a function of (seed, step)
- `check`: what is wrong with a folder, file by file
"""
