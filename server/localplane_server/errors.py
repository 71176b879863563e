"""The errors of the domain. A kind fixes the gRPC code, a leaf carries a stable reason.

::

    LocalplaneError
    ├── InvalidArgumentError            INVALID_ARGUMENT
    │   ├── InvalidModelNameError       INVALID_MODEL_NAME
    │   └── SourceRefusedError          SOURCE_REFUSED
    ├── UnauthenticatedError            UNAUTHENTICATED
    ├── PermissionDeniedError           FORBIDDEN
    ├── NotFoundError
    │   ├── GalleryNotFoundError        GALLERY_NOT_FOUND
    │   ├── JobNotFoundError            JOB_NOT_FOUND
    │   ├── MetricsDisabledError        METRICS_DISABLED
    │   ├── ModelNotInGalleryError      MODEL_NOT_IN_GALLERY
    │   ├── ModelNotFoundError          MODEL_NOT_FOUND
    │   └── ModelNotLoadedError         MODEL_NOT_LOADED
    ├── AlreadyExistsError              ALREADY_EXISTS
    │   ├── GalleryExistsError          ALREADY_EXISTS
    │   └── RequestIdReusedError        REQUEST_ID_REUSED
    ├── FailedPreconditionError
    │   ├── AutoloadDisabledError       AUTOLOAD_DISABLED
    │   ├── BackendNotInstalledError    BACKEND_NOT_INSTALLED
    │   ├── ExtraNotInstalledError      EXTRA_NOT_INSTALLED
    │   ├── JobFinishedError            JOB_FINISHED
    │   ├── ModelTooLargeError          MODEL_TOO_LARGE
    │   ├── OfflineError                OFFLINE
    │   └── ServerTakenError            EXTERNAL_SERVER_TAKEN
    ├── UnsupportedError
    │   └── NotSupportedByBackendError  NOT_SUPPORTED_BY_BACKEND
    ├── UnavailableError
    │   ├── DrainingError               DRAINING
    │   ├── BackendGoneError            BACKEND_GONE
    │   ├── BackendUnavailableError     BACKEND_UNAVAILABLE
    │   ├── LoadCooldownError           LOAD_COOLDOWN
    │   └── NotReadyError               NOT_READY
    ├── ExhaustedError
    │   ├── CapacityExhaustedError      CAPACITY_EXHAUSTED
    │   └── TooManyRequestsError        TOO_MANY_REQUESTS
    ├── InsufficientStorageError        INSUFFICIENT_STORAGE
    ├── FailedError
    │   ├── ArchiveRefusedError         ARCHIVE_REFUSED
    │   ├── BackendFailedError          BACKEND_FAILED
    │   ├── BackendStatusFailedError    BACKEND_STATUS_FAILED
    │   ├── DigestMismatchError         DIGEST_MISMATCH
    │   ├── DownloadFailedError         DOWNLOAD_FAILED
    │   ├── InstallFailedError          INSTALL_FAILED
    │   ├── LoadFailedError             LOAD_FAILED
    │   └── UnsafeFilesError            UNSAFE_FILES
    └── OverdueError                    DEADLINE_EXCEEDED

    StartupError                        no reason: nobody can call a service that did not start
    ├── SettingsError
    ├── AddressTakenError
    ├── DataDirLockedError
    ├── StateTooNewError
    └── StateUnreadableError
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class LocalplaneError(Exception):
    """Anything that the service refuses or fails to do, for a cause that a caller can be told."""

    reason: ClassVar[str] = "INTERNAL"
    """Stable, for programs. Part of the API."""
    is_offline: bool = False
    """Whether that may be only because the service was told to stay off the network."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        """For people. Whatever varies in it is in `metadata` too."""
        self.metadata = metadata
        """The variable parts of the message, by name."""


class InvalidArgumentError(LocalplaneError):
    """An argument is wrong whatever the state of the service."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, field: str = "", **metadata: str) -> None:
        super().__init__(message, **({"field": field} if field else {}), **metadata)
        self.field = field
        """Path of the wrong field in the request. Empty when it is not one field."""


class InvalidModelNameError(InvalidArgumentError):
    """A model's name is missing, blank, too long or has control characters."""

    reason = "INVALID_MODEL_NAME"


class SourceRefusedError(InvalidArgumentError):
    """A file is to come from a place, or by a way, that the service does not fetch from."""

    reason = "SOURCE_REFUSED"

    def __init__(self, source: str, cause: str, *, field: str = "") -> None:
        super().__init__(f"cannot download {source}: {cause}", field=field, source=source)


class UnauthenticatedError(LocalplaneError):
    """A key is needed and none, or an unknown one, was given."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(LocalplaneError):
    """The key is known and does not suffice."""

    reason = "FORBIDDEN"


class NotFoundError(LocalplaneError):
    """What was asked for does not exist."""


class JobNotFoundError(NotFoundError):
    """There is no job of that identifier, or not any more."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, job: str) -> None:
        super().__init__(f"could not find any status for ID {job}", job=job)


class GalleryNotFoundError(NotFoundError):
    """There is no gallery of that name."""

    reason = "GALLERY_NOT_FOUND"

    def __init__(self, gallery: str) -> None:
        super().__init__(f"{gallery} is not currently registered", gallery=gallery)


class ModelNotInGalleryError(NotFoundError):
    """No gallery has a model of that name."""

    reason = "MODEL_NOT_IN_GALLERY"

    def __init__(self, model: str, unread: str = "", *, is_offline: bool = False) -> None:
        message = f'no model found with name "{model}"'
        if unread:
            message += f"; it may be in a gallery that cannot be read: {unread}"
        super().__init__(message, model=model, **({"unread": unread} if unread else {}))
        self.is_offline = is_offline


class MetricsDisabledError(NotFoundError):
    """The service keeps no figures for monitoring systems."""

    reason = "METRICS_DISABLED"

    def __init__(self) -> None:
        super().__init__("cannot give metrics: they are disabled")


class ModelNotFoundError(NotFoundError):
    """There is no model of that name."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, model: str) -> None:
        message = f'model "{model}" not found. To see available models, call GET /v1/models'
        super().__init__(message, model=model)


class ModelNotLoadedError(NotFoundError):
    """The model is not loaded, or there is no such model."""

    reason = "MODEL_NOT_LOADED"

    def __init__(self, model: str) -> None:
        super().__init__(f"backend {model} is not currently loaded", model=model)


class AlreadyExistsError(LocalplaneError):
    """There is one of that name already."""

    reason = "ALREADY_EXISTS"


class RequestIdReusedError(AlreadyExistsError):
    """The identifier of the request was another request's within a day."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        message = (
            f"cannot take request {request_id}: another request had this request_id within a day"
        )
        super().__init__(message, request_id=request_id)


class GalleryExistsError(AlreadyExistsError):
    """There is a gallery of that name."""

    def __init__(self, gallery: str) -> None:
        super().__init__(f"{gallery} already exists", gallery=gallery)


class FailedPreconditionError(LocalplaneError):
    """The service is not set up for this; trying again does not help."""


class AutoloadDisabledError(FailedPreconditionError):
    """The model is not loaded and the service does not load on demand."""

    reason = "AUTOLOAD_DISABLED"

    def __init__(self, model: str) -> None:
        message = f"cannot use model {model}: it is not loaded and loading on demand is disabled"
        super().__init__(message, model=model)


class BackendNotInstalledError(FailedPreconditionError):
    """The model names a backend that is not installed, or none that could serve it."""

    reason = "BACKEND_NOT_INSTALLED"

    def __init__(self, backend: str, model: str) -> None:
        super().__init__(f"backend not found: {backend or '(none)'}", backend=backend, model=model)


class ExtraNotInstalledError(FailedPreconditionError):
    """A part of the service is not installed."""

    reason = "EXTRA_NOT_INSTALLED"

    def __init__(self, what: str, extra: str) -> None:
        message = f"cannot use {what}: install localplane[{extra}]"
        super().__init__(message, what=what, extra=extra)


class JobFinishedError(FailedPreconditionError):
    """The job came to its end before it could be stopped, or long ago."""

    reason = "JOB_FINISHED"

    def __init__(self, verb: str, job: str, state: str) -> None:
        message = f"cannot {verb} job {job}: it is already {state}"
        super().__init__(message, job=job, state=state)


class OfflineError(FailedPreconditionError):
    """A file would have to come over the network, and the service was told to stay off it."""

    reason = "OFFLINE"
    is_offline = True

    def __init__(self, source: str) -> None:
        super().__init__(f"cannot download {source}: --offline is set", source=source)


class ServerTakenError(FailedPreconditionError):
    """A server that others run holds another model, and it holds one at a time."""

    reason = "EXTERNAL_SERVER_TAKEN"

    def __init__(self, backend: str, model: str, holder: str) -> None:
        message = (
            f"cannot load model {model}: the server of backend {backend} holds model {holder},"
            " and it holds one at a time; stop that first"
        )
        super().__init__(message, backend=backend, model=model, holder=holder)


class ModelTooLargeError(FailedPreconditionError):
    """The model would not fit into the memory that backends may take, even if it were alone."""

    reason = "MODEL_TOO_LARGE"

    def __init__(self, model: str, needed: int, budget: int) -> None:
        message = (
            f"cannot load model {model}: it is thought to take {needed} bytes of memory, and all backends together"
            f" may take {budget}; --memory-budget sets that"
        )
        super().__init__(message, model=model, needed=str(needed), budget=str(budget))


class UnsupportedError(LocalplaneError):
    """This cannot be done, here or ever."""


class NotSupportedByBackendError(UnsupportedError):
    """The model's backend does not have the operation."""

    reason = "NOT_SUPPORTED_BY_BACKEND"

    def __init__(self, operation: str, model: str) -> None:
        message = f"cannot {operation} with model {model}: its backend does not support it"
        super().__init__(message, operation=operation, model=model)


class UnavailableError(LocalplaneError):
    """Not now; trying again later may help."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0, **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.retry_after_seconds = retry_after_seconds
        """When to try again."""


class DrainingError(UnavailableError):
    """The backend or the service is being stopped and takes no new calls."""

    reason = "DRAINING"


class BackendGoneError(UnavailableError):
    """The backend ended while the call was in flight."""

    reason = "BACKEND_GONE"


class BackendUnavailableError(UnavailableError):
    """The backend is well, and something that it needs is not: a server elsewhere, for one."""

    reason = "BACKEND_UNAVAILABLE"


class LoadCooldownError(UnavailableError):
    """The model failed again and again, and calls do not load it for a while."""

    reason = "LOAD_COOLDOWN"

    def __init__(self, model: str, retry_after_seconds: float, cause: str) -> None:
        message = (
            f"cannot use model {model}: it failed again and again, the last time because: {cause}"
        )
        super().__init__(message, retry_after_seconds=retry_after_seconds, model=model)


class NotReadyError(UnavailableError):
    """The service cannot do its work at the moment."""

    reason = "NOT_READY"


class ExhaustedError(LocalplaneError):
    """There is too much of it already; trying again once there is less may help."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0, **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.retry_after_seconds = retry_after_seconds
        """When to try again."""


class TooManyRequestsError(ExhaustedError):
    """As many callers as can be served at once are served already, here or by a server behind the backend."""

    reason = "TOO_MANY_REQUESTS"


class CapacityExhaustedError(ExhaustedError):
    """There was no place for the model in time."""

    reason = "CAPACITY_EXHAUSTED"


class InsufficientStorageError(LocalplaneError):
    """The disk is full, or would be. A kind of its own: waiting alone does not help."""

    reason = "INSUFFICIENT_STORAGE"

    def __init__(self, message: str, *, needed: int | None = None, free: int | None = None) -> None:
        told = {"needed": needed, "free": free}
        super().__init__(message, **{name: str(n) for name, n in told.items() if n is not None})


class FailedError(LocalplaneError):
    """Something outside the service failed."""


class ArchiveRefusedError(FailedError):
    """An archive is damaged, or holds what no archive of a model has to hold. Nothing of it was put in place."""

    reason = "ARCHIVE_REFUSED"

    def __init__(self, archive: str, finding: str) -> None:
        super().__init__(f"cannot unpack {archive}: {finding}", file=archive)


class BackendFailedError(FailedError):
    """The process of the backend ended by itself, or the backend answered with an error."""

    reason = "BACKEND_FAILED"


class BackendStatusFailedError(FailedError):
    """A backend that others run does not report its status, so that nothing is known of it."""

    reason = "BACKEND_STATUS_FAILED"

    def __init__(self, model: str, cause: str) -> None:
        message = f"backend {model} experienced an error retrieving status info via rpc: {cause}"
        super().__init__(message, model=model)


class DigestMismatchError(FailedError):
    """A file came whole and is not the one that was asked for. It was thrown away."""

    reason = "DIGEST_MISMATCH"

    def __init__(self, source: str, expected: str, found: str) -> None:
        message = f"cannot download {source}: its SHA-256 is {found}, and {expected} was expected"
        super().__init__(message, source=source, expected=expected, found=found)


class DownloadFailedError(FailedError):
    """A file could not be fetched. What came of it is kept, where going on from it makes sense."""

    reason = "DOWNLOAD_FAILED"

    def __init__(self, source: str, cause: str, **metadata: str) -> None:
        super().__init__(f"cannot download {source}: {cause}", source=source, **metadata)


class InstallFailedError(FailedError):
    """Files could not be fetched, checked or put in place. What was there before still is."""

    reason = "INSTALL_FAILED"


class LoadFailedError(FailedError):
    """The model could not be loaded."""

    reason = "LOAD_FAILED"


class UnsafeFilesError(FailedError):
    """A hub calls files unsafe in a repository that the model comes from. No file was fetched."""

    reason = "UNSAFE_FILES"

    def __init__(self, model: str, repository: str) -> None:
        message = f"cannot install {model}: unsafe files found in {repository}"
        super().__init__(message, model=model, repository=repository)


class OverdueError(LocalplaneError):
    """The call's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class StartupError(Exception):
    """The service cannot start, for a cause that whoever starts it can be told."""


class SettingsError(StartupError):
    """A setting cannot be read, or settings contradict each other."""


class AddressTakenError(StartupError):
    """Somebody else listens on the address."""

    def __init__(self, address: str, holder: str | None) -> None:
        by = f"{holder} does" if holder else "somebody else does"
        super().__init__(f"cannot listen on {address}: {by} already; choose another, or port 0")


class DataDirLockedError(StartupError):
    """Another service works on the data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"cannot use data directory {data_dir}: {holder} is using it")
        self.pid = pid
        """Process that holds it. None when it did not say."""


class StateTooNewError(StartupError):
    """The state file was written by a newer version of the service."""

    def __init__(self, path: Path, version: int, known_version: int) -> None:
        super().__init__(
            f"cannot open {path}: a newer version of localplane wrote it "
            f"(schema {version}, this version knows {known_version})"
        )


class StateUnreadableError(StartupError):
    """The state file is damaged, is none, or cannot be opened."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"cannot open {path}: {cause}")
