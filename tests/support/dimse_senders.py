"""Senders that leave no socket behind, however they are received."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket


class _Socket(AssociationSocket):
    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()


class Sender(AE):
    """Closes sockets also where the connection was never made, or ended by the peer."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: Any
    ) -> AssociationSocket:
        made = _Socket(assoc, address=address)
        made.tls_args = tls_args
        return made


@contextmanager
def associated(
    port: int,
    contexts: Sequence[Any],
    title: str = "AQCF",
    calling: str = "SENDER",
    tls: ssl.SSLContext | None = None,
    roles: Sequence[Any] = (),
) -> Iterator[Association]:
    """An association with what listens on a loopback port, whether or not it was established."""
    arguments = None if tls is None else (tls, "127.0.0.1")
    made = Sender(calling).associate(
        "127.0.0.1", port, list(contexts), title, tls_args=arguments, ext_neg=list(roles)
    )
    try:
        yield made
    finally:
        if made.is_established:
            made.release()
