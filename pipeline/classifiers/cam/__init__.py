"""The plain classifier behind class activation maps (Zhou et al., CVPR 2016), as IRN trains it (its
specification, section 2).
"""
