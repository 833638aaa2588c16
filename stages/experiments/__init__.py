"""Finished runs and experiments, read from Git and DVC without a checkout."""
