"""What accumulation and rematerialisation cost, and what they save."""
