"""A3, Loss and metrics: Dice in all its forms, and distances."""
