"""What `weakmask compare` does: plan experiments, run them through DVC's queue, judge what they left behind, and tabulate it."""
