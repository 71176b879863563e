"""Model configurations on disk, their names and aliases."""
