"""Fuzzing: the inspection of model files, the walk before they are loaded, and the reading of requests."""
