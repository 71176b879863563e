"""Methods of the SystemService."""

from __future__ import annotations

from google.api import httpbody_pb2

from localplane.v1 import resources_pb2, summary_pb2, system_service_pb2
from localplane_client.methods import unary


class SystemMethods:
    """What the service is and how it is."""

    @unary("SystemService/GetSystem", system_service_pb2.GetSystemResponse)
    def get_system(self) -> system_service_pb2.GetSystemRequest:
        """Get the names of the backends that can be started and the models that are loaded."""
        return system_service_pb2.GetSystemRequest()

    @unary("SystemService/GetVersion", system_service_pb2.GetVersionResponse)
    def get_version(self) -> system_service_pb2.GetVersionRequest:
        """Get the version of the service."""
        return system_service_pb2.GetVersionRequest()

    @unary("SystemService/GetSummary", summary_pb2.Summary)
    def get_summary(self) -> system_service_pb2.GetSummaryRequest:
        """Get what the service is and has, as far as the key lets one see it."""
        return system_service_pb2.GetSummaryRequest()

    @unary("SystemService/GetResources", resources_pb2.Resources)
    def get_resources(self) -> system_service_pb2.GetResourcesRequest:
        """Get the processors, memory, disks and accelerators that the service has for models."""
        return system_service_pb2.GetResourcesRequest()

    @unary("SystemService/Live", httpbody_pb2.HttpBody)
    def live(self) -> system_service_pb2.LiveRequest:
        """Return if the service answers at all."""
        return system_service_pb2.LiveRequest()

    @unary("SystemService/Ready", httpbody_pb2.HttpBody)
    def ready(self) -> system_service_pb2.ReadyRequest:
        """Return if the service can do its work; else the error has the reason `NOT_READY`."""
        return system_service_pb2.ReadyRequest()
