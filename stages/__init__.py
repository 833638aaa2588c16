"""One thin command per DVC stage, and the weakmask command line."""
