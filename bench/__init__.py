"""Benchmarks: hivefold, its peers and a physical floor, measured on one machine in one run. `make bench`."""
