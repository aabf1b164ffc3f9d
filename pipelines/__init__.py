"""What is chained, and where it runs."""
