"""Small images as examples: noise on their way into a training."""
