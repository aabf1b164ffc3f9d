"""Example tasks: one file each, as a user would write it."""
