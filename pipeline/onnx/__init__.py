"""The final models as ONNX files that need nothing of this project, checked against PyTorch before
they are written.
"""
