"""The protocol's messages, in a descriptor pool of their own.

Every library that speaks the protocol registers the same names in protobuf's default pool, where the second one
fails to import. Here nothing is registered: such a library can be used in the same process.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final, TypeAlias

from google.protobuf import descriptor_pool, message_factory, wrappers_pb2

SERVICE: Final = "inference.GRPCInferenceService"
Message: TypeAlias = Any
"""A message of the protocol: its class is made when the process starts, so no stub can describe it."""


def _load() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    described = files("hivefold.oip").joinpath("open_inference.binpb").read_bytes()
    # On the wire a set of one file is a message whose field 1 holds its bytes, as BytesValue is: read as one, it spares
    # each node the 3 MB of descriptor_pb2.
    pool.AddSerializedFile(wrappers_pb2.BytesValue.FromString(described).value)
    return pool


POOL: Final = _load()


def message_class(name: str) -> Message:
    """The class of one message, e.g. "ModelInferRequest"."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


ModelInferRequest: Final[Message] = message_class("ModelInferRequest")
ModelInferResponse: Final[Message] = message_class("ModelInferResponse")
ModelStreamInferResponse: Final[Message] = message_class("ModelStreamInferResponse")


def method(name: str) -> tuple[Message, Message]:
    """Request and response class of one rpc of the service, e.g. "ModelReady"."""
    described = POOL.FindServiceByName(SERVICE).FindMethodByName(name)
    classes = message_factory.GetMessageClass
    return classes(described.input_type), classes(described.output_type)
