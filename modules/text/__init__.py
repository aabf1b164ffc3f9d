"""Text as examples: subword tokens, their masking, and an encoder."""
