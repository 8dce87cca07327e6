"""Models, documents and tokens: from what the user names to what every later stage reads."""
