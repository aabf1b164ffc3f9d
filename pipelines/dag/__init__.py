"""Settings -> TFX pipeline: its nodes, and what they have in common."""
