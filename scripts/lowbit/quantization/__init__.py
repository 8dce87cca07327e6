"""Quantized weights: the format, the quality numbers, and how a model is quantized."""
