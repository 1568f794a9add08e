"""Core values to and from protobuf. Total: every value, event and command round-trips."""
