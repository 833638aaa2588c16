"""Speed and memory against named references: `python -m benchmarks`."""
