"""Inference on request: which model, on which node, in which batch."""
