"""A client that knows nothing but backend.proto. It runs in a process of its own.

Arguments: the folder of what protoc made of backend.proto, the address, the model's file. Writes
what the backend answered as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc


def main(generated: str, address: str, model: str) -> None:
    sys.path.insert(0, generated)
    import backend_pb2  # type: ignore[import-not-found]  # noqa: PLC0415
    import backend_pb2_grpc  # type: ignore[import-not-found]  # noqa: PLC0415

    answers: dict[str, Any] = {}
    with grpc.insecure_channel(address) as channel:
        stub = backend_pb2_grpc.BackendStub(channel)
        health = stub.Health(backend_pb2.HealthMessage(), wait_for_ready=True, timeout=20)
        answers["health"] = health.message.decode()
        loaded = stub.LoadModel(backend_pb2.ModelOptions(Model="tiny.gguf", ModelFile=model))
        answers["loaded"] = loaded.success
        wanted = backend_pb2.PredictOptions(Prompt="x", Tokens=5)
        answers["whole"] = stub.Predict(wanted).message.decode()
        answers["pieces"] = "".join(r.message.decode() for r in stub.PredictStream(wanted))
        tokens = stub.TokenizeString(backend_pb2.PredictOptions(Prompt="hello")).tokens
        answers["text"] = stub.Detokenize(backend_pb2.DetokenizeRequest(tokens=tokens)).content
        answers["state"] = stub.Status(backend_pb2.HealthMessage()).state
    answers["ours"] = sorted(name for name in sys.modules if name.startswith("localplane"))
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
