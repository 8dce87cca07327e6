"""The papers' claims as data, what measures them, and verdicts. No torch."""
