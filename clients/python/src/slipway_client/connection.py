"""An open connection to one service, and streams on it."""

import uuid
from typing import Any, Generic, Self, TypedDict, TypeVar, Unpack, cast

import grpc

from slipway_client.channel import REQUEST_ID_KEY, TOKEN_KEY, open_channel
from slipway_client.error_details import from_rpc_error

Request = TypeVar("Request")
Response = TypeVar("Response")


class ConnectionOptions(TypedDict, total=False):
    """What may be said of a connection beside the address; what is left out is as `open_channel` has it."""

    deadline: float
    """Seconds for unary calls that name none."""
    credentials: grpc.ChannelCredentials | None
    """TLS credentials; None speaks plain text."""


class Connection:
    """A channel to one service. Open it on the event loop that uses it, and close it there.

    Raises:
        ValueError: the address is not one (see `address.target`).
    """

    def __init__(self, address: str, **options: Unpack[ConnectionOptions]) -> None:
        self.address = address
        self.channel = open_channel(address, **options)

    async def aclose(self) -> None:
        """Ends all calls on it."""
        await self.channel.close()

    def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        hf_token: str = "",
    ) -> "Stream[Response]":
        """Opens a server stream. It has no deadline: whoever reads it decides how long."""
        request_id = uuid.uuid4().hex
        metadata = (*token_metadata(hf_token), (REQUEST_ID_KEY, request_id))
        return Stream(method(request, metadata=metadata), self.address, request_id)


class Stream(Generic[Response]):
    """The messages of a server stream, by `async for` or one by one. Close it when you leave it early."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[Any, Response], address: str, request_id: str) -> None:
        self._call = call
        self._address = address
        self._request_id = request_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        message = await self.read()
        if message is None:
            raise StopAsyncIteration
        return message

    async def read(self) -> Response | None:
        """The next message; None when the server has ended the stream with OK.

        Raises:
            SlipwayError: the stream broke or was refused.
        """
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=self._address, request_id=self._request_id) from error
        return None if message is grpc.aio.EOF else cast("Response", message)

    def close(self) -> None:
        """Ends the stream. Nothing happens when it has ended."""
        self._call.cancel()


def token_metadata(hf_token: str) -> tuple[tuple[str, str], ...]:
    """Metadata that carries a caller's own Hub token, which the registry uses for this call only.

    Raises:
        ValueError: it is no token.
    """
    token = checked_token(hf_token)
    return ((TOKEN_KEY, token),) if token else ()


def checked_token(hf_token: str) -> str:
    """A Hub token without the white space around it, such as the line break at the end of a file.

    Raises:
        ValueError: gRPC cannot carry it as metadata. The text does not repeat it.
    """
    token = hf_token.strip()
    if not all("!" <= character <= "~" for character in token):
        raise ValueError("the Hub token has characters other than printable ASCII; copy it again from the Hub")
    return token
