"""The paper's tables and figures: the printed numbers, the runs that reproduce them, and the results."""
