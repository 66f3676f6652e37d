"""The paper's tables and figures: what was printed, what is trained for it, and how it is written down."""
