"""SeeNet, the self-erasing network (Hou, Jiang, Wei and Cheng, NeurIPS 2018; its specification,
section 1).
"""
