"""Predicting errors of held-out documents from text and the full-precision model."""
