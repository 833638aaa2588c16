"""The stages of the graph, one file each; their shared code; the command line; experiments."""

import os

# Before torch is loaded: how long OpenMP's threads spin for more work, in rounds. If they never do,
# a training takes 1.6 times as long on two cores; with ten times as many rounds a second busy
# process on the same cores, such as another stage, makes stage cams take six times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
