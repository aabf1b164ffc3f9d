"""Settings files to read and run, and a TFX pipeline of one's own that uses our components."""
