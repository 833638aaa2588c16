"""The stages of the graph, one file each; their shared code; the command line; experiments."""

import os

# Before torch is loaded: how long OpenMP's threads spin for more work, in rounds. If they never do,
# a training takes 1.6 times as long on two cores; with three times as many rounds it is a tenth
# faster, but two stages at once on the same cores take 1.5 times as long, with ten times as many
# three times. So `weakmask run`, which runs one stage at a time, lets them spin for longer.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
