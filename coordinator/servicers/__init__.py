"""The coordinator's gRPC services."""

from __future__ import annotations

from coordinator.servicers.audit import AuditServicer
from coordinator.servicers.backing import Backing
from coordinator.servicers.blobs import BlobServicer
from coordinator.servicers.fleet import FleetServicer
from coordinator.servicers.jobs import JobServicer
from coordinator.servicers.log import LogServicer
from coordinator.servicers.models import ModelServicer
from hivefold.rpc import Service
from hivefold.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from hivefold.v1.blob_service_pb2_grpc import add_BlobServiceServicer_to_server
from hivefold.v1.fleet_service_pb2_grpc import add_FleetServiceServicer_to_server
from hivefold.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from hivefold.v1.log_service_pb2_grpc import add_LogServiceServicer_to_server
from hivefold.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server

__all__ = ["Backing", "services"]


def services(backing: Backing) -> list[Service]:
    """All services, for an RpcServer. They refuse with NOT_LEADER until `backing.lead` was called."""
    jobs, fleet, models = JobServicer(backing), FleetServicer(backing), ModelServicer(backing)
    log, blobs, audit = LogServicer(backing), BlobServicer(backing), AuditServicer(backing)
    return [
        Service("hivefold.v1.JobService", lambda server: add_JobServiceServicer_to_server(jobs, server)),
        Service("hivefold.v1.FleetService", lambda server: add_FleetServiceServicer_to_server(fleet, server)),
        Service("hivefold.v1.ModelService", lambda server: add_ModelServiceServicer_to_server(models, server)),
        Service("hivefold.v1.LogService", lambda server: add_LogServiceServicer_to_server(log, server)),
        Service("hivefold.v1.BlobService", lambda server: add_BlobServiceServicer_to_server(blobs, server)),
        Service("hivefold.v1.AuditService", lambda server: add_AuditServiceServicer_to_server(audit, server)),
    ]
