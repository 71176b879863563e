"""The gRPC face: one module per service of the protos, and what all calls pass through."""
