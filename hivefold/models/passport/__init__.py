"""Passports of models: what a file is and needs, and how safe it is, read without running anything of it."""
