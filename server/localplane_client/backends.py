"""Methods of the BackendService."""

from __future__ import annotations

from collections.abc import Iterable

from localplane.v1 import backend_log_pb2, backend_pb2, backend_service_pb2
from localplane_client.methods import streaming, unary


class BackendMethods:
    """Starting, watching and stopping backends."""

    @unary("BackendService/GetBackendStatus", backend_pb2.BackendStatus)
    def get_backend_status(self, model: str) -> backend_service_pb2.GetBackendStatusRequest:
        """Get what is known of a model's backend: its state, its memory and its processor time."""
        return backend_service_pb2.GetBackendStatusRequest(model=model)

    @unary("BackendService/ListBackends", backend_service_pb2.ListBackendsResponse)
    def list_backends(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> backend_service_pb2.ListBackendsRequest:
        """List the backends that run, start, stop or have failed."""
        return backend_service_pb2.ListBackendsRequest(page_size=page_size, page_token=page_token)

    @streaming("BackendService/WatchBackends", backend_service_pb2.WatchBackendsResponse)
    def watch_backends(
        self, *, models: Iterable[str] = (), after_revision: str = ""
    ) -> backend_service_pb2.WatchBackendsRequest:
        """Give what the list has, then every change of it, of all models or of those named.

        With the revision of the last message that came, a watch that was cut goes on where it was.
        """
        return backend_service_pb2.WatchBackendsRequest(
            models=models, after_revision=after_revision
        )

    @unary(
        "BackendService/ListInstalledBackends", backend_service_pb2.ListInstalledBackendsResponse
    )
    def list_installed_backends(self) -> backend_service_pb2.ListInstalledBackendsRequest:
        """List the backends that can be started."""
        return backend_service_pb2.ListInstalledBackendsRequest()

    @unary("BackendService/LoadModel", backend_service_pb2.LoadModelResponse, is_quick=False)
    def load_model(self, model: str, *, wait: bool = True) -> backend_service_pb2.LoadModelRequest:
        """Load a model and return when it is ready, or at once with `wait=False`."""
        return backend_service_pb2.LoadModelRequest(model=model, wait=wait)

    @unary(
        "BackendService/ShutdownBackend",
        backend_service_pb2.ShutdownBackendResponse,
        is_quick=False,
    )
    def shutdown_backend(
        self, model: str, *, force: bool = False, grace_seconds: float | None = None
    ) -> backend_service_pb2.ShutdownBackendRequest:
        """Stop a model's backend and return when no process of it is left."""
        return backend_service_pb2.ShutdownBackendRequest(
            model=model, force=force, grace_seconds=grace_seconds
        )

    @unary("BackendService/ShutdownAll", backend_service_pb2.ShutdownAllResponse, is_quick=False)
    def shutdown_all(
        self, *, force: bool = False, grace_seconds: float | None = None
    ) -> backend_service_pb2.ShutdownAllRequest:
        """Stop all backends at once and return when no process of theirs is left."""
        return backend_service_pb2.ShutdownAllRequest(force=force, grace_seconds=grace_seconds)

    @streaming("BackendService/TailBackendLog", backend_log_pb2.BackendLogRecord)
    def tail_backend_log(
        self,
        model: str,
        *,
        lines: int | None = None,
        follow: bool = False,
        after_sequence: int | None = None,
    ) -> backend_service_pb2.TailBackendLogRequest:
        """Read what a model's backend wrote: the last lines, or all after a record; then what comes, if you follow."""
        return backend_service_pb2.TailBackendLogRequest(
            model=model, lines=lines, follow=follow, after_sequence=after_sequence
        )
