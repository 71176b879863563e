"""The llama backend: GGUF models that generate or embed, on llama.cpp by way of xllamacpp."""
