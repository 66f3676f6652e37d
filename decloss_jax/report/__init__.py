"""Tables and pages of results; they are handed plain values and know no metric and no network."""
