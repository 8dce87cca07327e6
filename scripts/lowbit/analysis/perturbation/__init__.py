"""What perturbations of weights and activations did, in tables."""
