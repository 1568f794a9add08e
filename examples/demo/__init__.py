"""`make demo`: the main job on a fleet of three nodes, with two kills, and what the log says of it."""
