"""What the machine has for models, and how much of it is in use."""
