"""One thin command per DVC stage, and the weakmask command line."""

import os

# Before torch is loaded: OpenMP's threads otherwise spin while they wait, and beside another busy
# process on the same cores, a second stage or the loaders, stage cams took eight times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
