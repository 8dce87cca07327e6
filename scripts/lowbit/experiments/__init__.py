"""What is done with the walk: scores, residual magnitudes, early exit, patching, interventions."""
