"""The recipe: `python -m hybridstitch.mini.train all --work DIR` makes the miniature pair from nothing."""
