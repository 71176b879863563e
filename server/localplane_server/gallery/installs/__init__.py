"""Models put into the models folder and taken out of it, wholly or not at all."""
