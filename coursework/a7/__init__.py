"""A7, Evidence: intervals, chance, and choices that look at the score."""
