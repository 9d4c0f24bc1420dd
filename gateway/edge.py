"""The gateway as its API sees it. app.py serves this, and so do tests with doors of their own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from vestibule_core.api.messages import DoorDescription, GatewayId, NextCertificate
from vestibule_core.controller import Controller
from vestibule_core.intake import Intake
from vestibule_core.journal import Journal
from vestibule_core.note import VerifierKey

from .carriers import Carriers
from .clients import Clients
from .pairing import Window
from .policy import PolicyDesk
from .witness import Witness

if TYPE_CHECKING:
    from .links import Links
    from .stream import Stream


class Edge(Protocol):
    """One gateway at work."""

    @property
    def id(self) -> GatewayId:
        """Its id, for life."""
        ...

    @property
    def name(self) -> str:
        """Its name, for people."""
        ...

    @property
    def version(self) -> str:
        """Of the program."""
        ...

    @property
    def hosts(self) -> Collection[str]:
        """The names that it may be called by in a ``Host`` header, in small letters, besides addresses."""
        ...

    @property
    def key(self) -> VerifierKey:
        """What its journal and its next certificate are verified by."""
        ...

    @property
    def next(self) -> NextCertificate | None:
        """The certificate that it will use next, if one is announced."""
        ...

    @property
    def controller(self) -> Controller:
        """The controller of its doors."""
        ...

    @property
    def journal(self) -> Journal:
        """Its journal, opened and started."""
        ...

    @property
    def intake(self) -> Intake:
        """How much may be asked for of its doors, whichever way it comes."""
        ...

    @property
    def clients(self) -> Clients:
        """Who is paired with it."""
        ...

    @property
    def window(self) -> Window:
        """Whether somebody may pair with it."""
        ...

    @property
    def policy(self) -> PolicyDesk:
        """What it allows."""
        ...

    @property
    def carriers(self) -> Carriers:
        """The carriers whose clouds it has links to."""
        ...

    @property
    def links(self) -> Links:
        """The links to them."""
        ...

    @property
    def witness(self) -> Witness:
        """What it holds of other controllers' journals."""
        ...

    @property
    def stream(self) -> Stream:
        """Who follows what happens."""
        ...

    def doors(self) -> Sequence[DoorDescription]:
        """Return its doors as they are now."""
        ...
