"""The benchmarks: each carries out one comparison and gives a Section."""
