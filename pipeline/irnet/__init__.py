"""IRNet (Ahn, Cho, Kwak, CVPR 2019): inter-pixel relations that grow class activation maps into
objects.
"""
