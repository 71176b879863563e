"""Asking loaded models: completions, chats, embeddings and tokens."""
