"""Text as examples: sub-words, their masking, and an encoder."""
