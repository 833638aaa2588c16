"""S2C, from SAM to CAMs (Kweon and Yoon, CVPR 2024): features contrasted by segments, maps taught
by masks prompted at their peaks.
"""
