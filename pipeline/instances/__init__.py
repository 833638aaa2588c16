"""Final instance models: one package per method, and what they share."""
