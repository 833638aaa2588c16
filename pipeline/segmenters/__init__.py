"""Class-agnostic segments of an image, and masks prompted by points: Segment Anything, or
superpixels without any weights.
"""
