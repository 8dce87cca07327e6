"""Statistics over what experiments inside the models measured."""
