"""Server reflection, v1alpha and v1, so that grpcurl and `buf curl` need no proto files.

grpcio-reflection serves v1alpha only. v1 has the same messages under another package name, so the same servicer answers
both, and the descriptor of v1 is made from v1alpha's.
"""

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

_V1ALPHA = "grpc.reflection.v1alpha"
_V1 = "grpc.reflection.v1"


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Serve reflection on these services (full names) and on itself."""
    _add_v1_to_pool()
    names = (*services, f"{_V1ALPHA}.ServerReflection", f"{_V1}.ServerReflection")
    servicer = ReflectionServicer(names)  # type: ignore[no-untyped-call]
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_registered_method_handlers(f"{_V1}.ServerReflection", {"ServerReflectionInfo": handler})


def _add_v1_to_pool() -> None:
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = _V1
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{_V1ALPHA}.", f".{_V1}.")
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{_V1ALPHA}.", f".{_V1}.")
            method.output_type = method.output_type.replace(f".{_V1ALPHA}.", f".{_V1}.")
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
