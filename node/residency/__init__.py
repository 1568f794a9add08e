"""Which models a node keeps loaded, what they take, and who waits for room."""
