"""Class-agnostic segments of a picture, and masks prompted by points: Segment Anything, or superpixels without any weights."""
