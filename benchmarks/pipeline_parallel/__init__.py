"""How much faster a network trains in stages."""
