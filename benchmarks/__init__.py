"""Speed measured side by side: `python -m benchmarks` runs every row of docs/performance.md, `python -m benchmarks scoring` one."""
