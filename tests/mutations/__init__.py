"""Every kind of mutation of an exported log, each at a random place: all are caught, where they are."""
