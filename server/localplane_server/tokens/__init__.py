"""What models' tokens come to: counted as predictions end, kept across restarts, told to whoever asks."""
