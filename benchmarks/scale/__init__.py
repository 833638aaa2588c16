"""Many images on one box: what each stage takes in time and memory, and what stays on the disk."""
