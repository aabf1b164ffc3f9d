"""Versions in a push folder: which there are, how one is added, how to go back to one. Answers without TensorFlow."""
