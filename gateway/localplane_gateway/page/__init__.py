"""The page that browsers get at `/`."""
