"""The stages of the graph, one file each; their shared code; the command line; experiments."""

import os

# Before torch is loaded, as OpenMP's idle threads otherwise spin: with another busy process on the
# same cores, such as a second stage or the loaders, stage cams took eight times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
