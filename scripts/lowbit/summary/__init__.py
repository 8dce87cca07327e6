"""A study in plain words, for people who open one page of it. No torch."""
