"""Example data that are written from installed packages; nothing is downloaded."""
