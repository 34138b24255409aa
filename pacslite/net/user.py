"""Whom an association serves: the association-service user of PS3.8 §7, as a connection sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pacslite.dimse.messages import Message
    from pacslite.dimse.service import Request
    from pacslite.net.connection import Connection
    from pacslite.upper_layer.pdu import AAssociateRQ

__all__ = ["AssociationUser"]


class AssociationUser(Protocol):
    """Told of one connection or of many. All calls come on the loop, and must not raise."""

    def connected(self, connection: Connection) -> None:
        """The transport is there."""

    def requested(self, connection: Connection, request: AAssociateRQ) -> None:
        """A-ASSOCIATE indication: ``accept`` or ``reject``, now or later."""

    def answered(self, connection: Connection, message: Message) -> bool:
        """A request without a data set has come, and no other waits: answer it now, or have it performed (False)."""

    def begin(self, connection: Connection, message: Message) -> Request:
        """The ``Request`` of a request message, its sink opened; called as soon as its command set is there."""

    def arrived(self, connection: Connection, request: Request) -> None:
        """A request is complete: perform it, or ``queue`` it for ``next_request``."""

    def release_requested(self, connection: Connection) -> None:
        """A-RELEASE indication: ``respond_release``, now or later."""

    def ended(self, connection: Connection) -> None:
        """The association is over, or none was made of it: ``over`` says why."""

    def closed(self, connection: Connection) -> None:
        """The transport is gone."""
