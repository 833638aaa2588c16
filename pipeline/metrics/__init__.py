"""Scores of label maps and instances, and the scores of each step of the pipeline."""
