"""From maps to labels: dense CRF, seeds, pseudo-labels, segment voting."""
