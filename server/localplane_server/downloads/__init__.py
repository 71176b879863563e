"""Fetches files and small documents from wherever models come from, whole or not at all."""
