"""Speed measured side by side: `python -m scripts.benchmarks` runs every row of docs/performance.md.

`python -m scripts.benchmarks scoring` runs one of them.
"""
