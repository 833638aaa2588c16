"""Multi-label classifiers whose class maps locate the classes: a room per method, and what they
share.

Every method's room holds `network.py` (class Network: what stage cams needs) and `training.py`
(samples, objective).
"""
