"""Training networks that do not fit into memory: one concept per file."""
