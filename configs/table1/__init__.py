"""Table 1: the ten configurations of the ablation."""
