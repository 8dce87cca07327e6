"""What is written down of runs and results: machines, environments, provenance, and a crate."""
