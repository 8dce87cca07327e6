"""Perturbations of weights and activations: noise of a chosen kind and size, and clipping."""
