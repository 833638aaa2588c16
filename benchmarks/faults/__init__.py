"""Kill stages, fill the disk, take workers away, cut inputs: see that the same bytes come out
(`python -m benchmarks.faults`).
"""
