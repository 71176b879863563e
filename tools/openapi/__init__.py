"""Makes the OpenAPI document from descriptors. A part of `tools/protoc_gen_openapi.py`."""
