"""What every stage runs on: artifacts, the per-image engine, the trainer, weights, resume, the
device.
"""
