"""What each strategy costs and gains."""
