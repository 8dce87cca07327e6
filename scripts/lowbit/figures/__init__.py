"""Figures that can be read without the code. No torch."""
