"""The two networks in the package: `faithful`, and `vivid`, which starts from it."""
