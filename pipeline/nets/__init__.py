"""Backbones and the semantic network."""
