"""A2, Patches and folds: windows, a sampler, a deal, and leaks."""
