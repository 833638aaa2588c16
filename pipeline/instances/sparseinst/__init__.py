"""SparseInst (Cheng et al., CVPR 2022): instances as sparse activation maps, one mask a query,
without boxes and without NMS.
"""
