"""The local web page over the artifacts of one or several runs: a grid of images, and an image's
page with its layers.
"""
