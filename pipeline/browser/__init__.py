"""The local web page over the artefacts of one or several runs: a grid of pictures, and a picture's page with its layers."""
