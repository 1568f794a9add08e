"""Fuzzing: the inspection of model files, which come from anywhere."""
