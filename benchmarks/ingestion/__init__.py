"""What each part of an input pipeline gains."""
