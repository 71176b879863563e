"""The HTTP face: Connexion serving the generated document, as a client of gRPC."""
