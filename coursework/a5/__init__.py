"""A5, Training: a schedule, when to stop, and going on where it was."""
