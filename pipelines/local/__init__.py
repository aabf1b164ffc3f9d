"""Runs on this machine: the checks before, the run, its progress, its failures."""
