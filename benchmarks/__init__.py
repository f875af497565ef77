"""Measurements beside the libraries that one would otherwise use: `make bench`."""
