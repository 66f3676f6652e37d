"""Table 3: other methods."""
