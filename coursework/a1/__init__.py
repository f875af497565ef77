"""A1, Geometry: sides, volumes, and a grid and back."""
