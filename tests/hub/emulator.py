"""The emulator in this process: three listening origins around one catalogue."""

import ssl
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.hub.admin import Admin
from tests.hub.auth import User, Users
from tests.hub.cas import Cas
from tests.hub.catalogue import Catalogue
from tests.hub.cdn import Cdn
from tests.hub.content import BlobStore
from tests.hub.gate import Gate
from tests.hub.hub_routes import HubRoutes
from tests.hub.journal import Journal
from tests.hub.links import Signer
from tests.hub.messages import OriginName
from tests.hub.origin import Origin
from tests.hub.ratelimit import RateLimits
from tests.hub.resolve import Resolver
from tests.hub.rules import Rules
from tests.hub.throttle import Throttle
from tests.hub.xet import XetStore


class HubEmulator:
    """A Hub on loopback; a context manager that listens while it is open.

    Attributes:
        catalogue, add_repo: repositories, and the making of one (`Catalogue.add`).
        faults: rules for what goes wrong.
        journal: what was asked.
        users, limits, throttle, signer, cas: accounts, request quotas, bandwidth, links, Xet tokens.
        routes: page sizes.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        blob_directory: Path | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._port = port
        self.users = Users()
        self.faults = Rules()
        self.throttle = Throttle()
        self.limits = RateLimits()
        self.signer = Signer(clock)
        self.journal = Journal(self.users.tokens)
        self._blobs = BlobStore(blob_directory)
        cdn = Cdn(signer=self.signer)
        xet = XetStore()
        self.catalogue = Catalogue(blobs=self._blobs, cdn=cdn, xet=xet)
        self.add_repo = self.catalogue.add
        self.cas = Cas(store=xet, signer=self.signer, url=lambda: self.cas_url)
        gate = Gate(catalogue=self.catalogue, hub_url=lambda: self.endpoint)
        self.routes = HubRoutes(
            gate=gate,
            resolver=Resolver(gate=gate, cdn_url=lambda: self.cdn_url),
            users=self.users,
            limits=self.limits,
            cas=self.cas,
        )
        admin = Admin(
            catalogue=self.catalogue,
            journal=self.journal,
            rules=self.faults,
            throttle=self.throttle,
            limits=self.limits,
        )

        def origin(name: OriginName, **routes: Any) -> Origin:
            return Origin(name, journal=self.journal, rules=self.faults, throttle=self.throttle, tls=tls, **routes)

        self.origins: Mapping[OriginName, Origin] = {
            "hub": origin("hub", route=self.routes.route, admin=admin.route),
            "cdn": origin("cdn", route=cdn.route),
            "cas": origin("cas", route=self.cas.route),
        }

    def open(self) -> Self:
        """Listen: the HUB on the given port (0: a free one), the others on free ones.

        Raises:
            OSError: the port is taken.
        """
        self.origins["hub"].open(self._port)
        self.origins["cdn"].open()
        self.origins["cas"].open()
        return self

    def close(self) -> None:
        """Cut all connections, stop listening, delete temporary content."""
        for origin in self.origins.values():
            origin.close()
        self._blobs.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """The HUB's address, for HF_ENDPOINT."""
        return self.origins["hub"].url

    @property
    def cdn_url(self) -> str:
        """The CDN's address."""
        return self.origins["cdn"].url

    @property
    def cas_url(self) -> str:
        """The CAS's address."""
        return self.origins["cas"].url

    @property
    def addresses(self) -> dict[str, str]:
        """The three addresses, by origin."""
        return {name: origin.url for name, origin in self.origins.items()}

    def add_user(self, name: str, token: str, access: Collection[str] = ()) -> User:
        """Make an account that may read these gated and private repositories."""
        return self.users.add(name, token, frozenset(access))

    def down(self, origin: OriginName) -> None:
        """Take an origin off the network: its connections are cut, new ones are refused."""
        self.origins[origin].close(for_good=False)

    def up(self, origin: OriginName) -> None:
        """Bring it back on the same port."""
        self.origins[origin].open()

    def reset(self) -> None:
        """Lift faults and limits and forget the journal, between tests that share an emulator."""
        self.faults.clear()
        self.throttle.clear()
        self.limits.clear()
        self.journal.clear()
