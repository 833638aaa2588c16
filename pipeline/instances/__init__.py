"""Instances: their masks, the samples that instance models learn from, and what they find."""
