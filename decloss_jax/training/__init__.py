"""Two-stage training: state, schedule, compiled step, loop."""
