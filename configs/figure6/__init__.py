"""Figure 6: the temperatures, each alone moved from (t_pos, t_neg) = (0.5, 1.5)."""
