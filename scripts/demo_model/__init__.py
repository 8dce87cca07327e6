"""The embedded model's recipe: corpus, tokenizer, documents, training, publication."""
