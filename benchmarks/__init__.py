"""What the product costs, measured: one command each, run from the repository."""
