"""Speed, as ratios within one run: `python -m experiments.bench.NAME [--out FILE]`."""
