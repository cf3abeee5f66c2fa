"""The parts of benchmark.py: the work (case), who does it (peers), the clock (harness, workers), the suites."""
