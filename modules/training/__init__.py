"""One training job: what it needs, its loop, its checkpoints, its report."""
