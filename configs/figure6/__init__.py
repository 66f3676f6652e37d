"""Figure 6: one temperature changed at a time from (t_pos, t_neg) = (0.5, 1.5)."""
