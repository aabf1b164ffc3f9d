"""Noisy Student on digits: clean, corrupted and slowly changing ones."""
