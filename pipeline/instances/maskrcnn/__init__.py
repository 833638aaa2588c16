"""Mask R-CNN (He et al., ICCV 2017), torchvision's, on any timm backbone: the final instance model
of IRNet's paper.
"""
