"""Speed, memory and disk against named references: `python -m benchmarks`."""
