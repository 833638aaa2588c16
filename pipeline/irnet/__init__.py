"""IRNet: inter-pixel relations that grow class activation maps into whole, separate objects.

Ahn, Cho and Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations",
CVPR 2019. All sections and equations cited in this package are those of that paper.
"""
