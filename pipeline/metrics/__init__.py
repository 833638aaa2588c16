"""Scores of semantic masks and of instances."""
