"""Multi-label classifiers whose class maps locate the classes: one file per method, one for the maps they all give."""
