"""Class-agnostic segments of an image and masks prompted by points: by Segment Anything, or without
any weights by superpixels.
"""
