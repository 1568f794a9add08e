"""Readers of a log or of an exported file: what was, what changed, why, and whether today's code agrees."""
