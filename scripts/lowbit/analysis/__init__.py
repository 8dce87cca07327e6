"""Statistics over documents: errors, their correlation, residual magnitudes. No torch."""
