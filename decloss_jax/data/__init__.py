"""Image files in, batches of paired crops out: NumPy, Pillow and Grain.

- `images` (with `tiff`, `orientation`): reads a file as 8-bit RGB, or refuses it by name
- `pairs`: an HR image and its LR image, given or made by MATLAB's bicubic
- `folder`, `photographs`, `prepared`: list pairs; `sources` is the table of them
- `tfds_div2k`, `div2k_archives`: prepare DIV2K for `prepared` from its archives
- `cache`: decodes once, memory-maps afterwards
- `augment`, `pipeline`: the crops of a step as a function of (seed, step)
- `check`: finds the faults of a folder, file by file
"""
