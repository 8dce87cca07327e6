"""The lockstep block walk: a model's streams, their activations, losses and checks."""
