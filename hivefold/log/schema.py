"""The schema of records as a descriptor set: what a log file carries so that it can be read without hivefold."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from hivefold.v1 import log_file_pb2


@cache
def record_schema() -> FileDescriptorSet:
    """Every file that LogFileEntry and Record need, each after those that it imports. Shared: not to be changed."""
    files: dict[str, FileDescriptorProto] = {}

    def add(descriptor: Any) -> None:
        for imported in descriptor.dependencies:
            if imported.name not in files:
                add(imported)
        file = FileDescriptorProto()
        descriptor.CopyToProto(file)
        files[descriptor.name] = file

    add(log_file_pb2.DESCRIPTOR)
    return FileDescriptorSet(file=files.values())
