"""A building played against another carrier's cloud, over the link (protocol G): what the cloud has to do, and what it
has to withstand.

Behind it is a real controller with a real journal, in a folder that is thrown away; its strike moves nothing. What it
refuses to do: call a cloud good for what it has not seen. What nobody did meanwhile (a driver has to ask for the door)
and what cannot be seen from a building (an alarm) is said to be so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from vestibule_core import b64url, keyset
from vestibule_core.controller import Controller
from vestibule_core.errors import KeySetInvalid, MalformedMessage
from vestibule_core.journal import Journal
from vestibule_core.keyset import Issued, KeySet
from vestibule_core.link import messages
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.link.messages import (
    FROM_CLOUD,
    FROM_CONTROLLER,
    MAX_FRAME,
    Accepted,
    AskChallenge,
    AskList,
    Begin,
    Challenge,
    FromCloud,
    FromController,
    Greeting,
    Hello,
    IssuedPart,
    Keys,
    LinkedDoor,
    NoChallenge,
    Outcome,
    Ping,
    Pong,
    SignedChallenge,
    Unlock,
)
from vestibule_core.model import Code, Door, DoorId, Issuer, Principal, Word, issuer, new_door_id
from vestibule_core.note import SignerKey
from vestibule_core.policy import Building, Carrier
from vestibule_core.strike import Capabilities, Pulse, Reading, Strike

from . import judging
from .judging import Known, Verdict
from .keyfile import refused_set, set_steps
from .report import Report, Result, Step

PATH: Final = "/v1/link"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ELSEWHERE: Final = issuer("https://another-carrier.invalid")
_CLOCKS_APART: Final = timedelta(seconds=60)
"""By which the cloud's clock and ours may differ, when a list is due."""


_ANYTHING: Final = (Keys, IssuedPart, AskChallenge)
"""What a cloud may say at any time."""


class UrlUnusable(ValueError):
    """An address is not one of a link. The text says what is."""


def link_url(text: str) -> URL:
    """Return the address of a link; raise UrlUnusable."""
    try:
        url = URL(text)
    except ValueError as err:
        raise UrlUnusable("--url is an address like wss://doors.parcels.example/v1/link") from err
    scheme = {"https": "wss", "http": "ws"}.get(url.scheme, url.scheme)
    if scheme not in ("wss", "ws") or not url.host or url.query or url.user:
        raise UrlUnusable("--url is an address like wss://doors.parcels.example/v1/link")
    if scheme == "ws" and url.host not in LOOPBACK:
        raise UrlUnusable("without TLS a link is tried on this machine only (ws://127.0.0.1:PORT)")
    return url.with_scheme(scheme) if url.path not in ("", "/") else url.with_scheme(scheme).with_path(PATH)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long it waits, in seconds."""

    driver: float = 60.0
    """For a driver who asks for the door, each time."""
    answer: float = 10.0
    """For what the cloud has to say by itself."""
    token: float = 15.0
    """For a token after a challenge."""
    quiet: float = 5.0
    """For what must not come."""
    silent: float = 30.0
    """For the cloud to close a connection that says nothing."""


# ---- a connection ----


class Closed(Exception):
    """The cloud has closed the connection, with this code."""

    def __init__(self, code: int | None) -> None:
        """Say with which."""
        super().__init__(f"closed with {code}")
        self.code = code


class Silent(Exception):
    """Nothing came in time."""


class Spoilt(Exception):
    """A frame came that no controller reads. The text says why."""


class Line:
    """One WebSocket, seen from the controller's end. Pings are answered, whoever listens or not."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Speak on this one."""
        self._socket = socket
        self._heard: asyncio.Queue[FromCloud | Closed | Spoilt] = asyncio.Queue()
        self._reader = asyncio.get_running_loop().create_task(self._read())
        self.pings = 0

    async def _read(self) -> None:
        while (message := await self._socket.receive()).type not in _ENDS:
            try:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise Spoilt("a frame is a text message")
                frame = _frame(message.data)
            except Spoilt as err:
                self._heard.put_nowait(err)
                continue
            if isinstance(frame, Ping):
                self.pings += 1
                await self.say(Pong())
            else:
                self._heard.put_nowait(frame)
        self._heard.put_nowait(Closed(self._socket.close_code))

    async def say(self, frame: FromController) -> None:
        """Send a frame; nothing, if it is closed."""
        await self.say_raw(FROM_CONTROLLER.encode(frame).decode())

    async def say_raw(self, text: str) -> None:
        """Send any text."""
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            await self._socket.send_str(text)

    async def hear(self, within: float) -> FromCloud:
        """Return the next frame that is no ping. Raises Closed, Silent or Spoilt."""
        try:
            async with asyncio.timeout(within):
                heard = await self._heard.get()
        except TimeoutError as err:
            raise Silent from err
        if isinstance(heard, Closed):
            self._heard.put_nowait(heard)  # it stays so
            raise heard
        if isinstance(heard, Spoilt):
            raise heard
        return heard

    async def ends(self, within: float, whatever: tuple[type, ...] = ()) -> int | None:
        """Return the code with which the cloud closes it, without another word than ``whatever``. Raises Silent or
        Spoilt.
        """
        until = time.monotonic() + within
        try:
            while isinstance(frame := await self.hear(max(0.0, until - time.monotonic())), whatever):
                pass
        except Closed as closed:
            return closed.code
        raise Spoilt(f"it said {_kind(frame)} instead")

    async def close(self) -> None:
        """Close it."""
        await self._socket.close()
        self._reader.cancel()
        await asyncio.wait([self._reader])


_ENDS: Final = (
    aiohttp.WSMsgType.CLOSE,
    aiohttp.WSMsgType.CLOSING,
    aiohttp.WSMsgType.CLOSED,
    aiohttp.WSMsgType.ERROR,
)


def _frame(text: str) -> FromCloud:
    if len(raw := text.encode(errors="replace")) > MAX_FRAME:
        raise Spoilt(f"a frame of {len(raw)} bytes; {MAX_FRAME} are the most")
    try:
        return FROM_CLOUD.decode(raw)
    except MalformedMessage as err:
        raise Spoilt(f"a frame of another form: {err}") from err


def _kind(frame: FromCloud) -> str:
    return type(frame).__name__


# ---- the building behind it ----


class NoStrike:
    """A strike that moves nothing and says that it did; it counts."""

    capabilities: Final = Capabilities(device_timed=True, feedback=False, can_secure=False)
    reading: Final = Reading.UNKNOWN

    def __init__(self) -> None:
        """It has not moved."""
        self.released = 0

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        """Its reading never changes."""
        del listener
        return lambda: None

    async def reach(self) -> None:
        """It always hears."""

    async def release(self, pulse: Pulse) -> None:
        """Count."""
        del pulse
        self.released += 1

    async def hold(self, origin: object) -> None:
        """Never: it cannot."""
        raise NotImplementedError

    async def secure(self) -> None:
        """Never: it cannot."""
        raise NotImplementedError


class PlayedBuilding:
    """One door, one controller, one journal; and whatever a cloud has told it."""

    def __init__(self, journal: Journal, key: SignerKey, position: tuple[float, float]) -> None:
        """Take an opened journal that ``key`` signs."""
        self.key = key
        self.instance = os.urandom(16)
        self.door = Door(new_door_id(os.urandom(16)), "Conformance", 1.0)
        self.position = position
        self.strike = NoStrike()
        self.controller = Controller(journal, tell=lambda _: None)
        self.published: KeySet | None = None
        self._strikes: dict[DoorId, Strike] = {self.door.id: self.strike}
        self.controller.start(Building.of([self.door], []), self._strikes)

    def trust(self, published: KeySet, name: str) -> None:
        """Let the carrier of this set in, at the door, with the default limits."""
        self.published = published
        carrier = Carrier(published.issuer, name, published.trusted, frozenset({self.door.id}))
        self.controller.apply(Building.of([self.door], [carrier]), self._strikes)

    def hello(self, begin: Begin, *, key: SignerKey | None = None, to: Issuer | None = None) -> str:
        """Return the signed hello for a connection; ``key``: signed by another one."""
        door = LinkedDoor(self.door.id, self.door.name, "Etc/UTC", *self.position)
        version = self.published.version if self.published else 0
        hello = Hello(self.key.verifier, to or begin.issuer, begin.nonce, self.instance, (door,), version, None)
        return messages.write_hello(key or self.key, hello)

    def challenge(self, of: Issuer) -> tuple[str, int]:
        """Return a live challenge of the door, and for how long it lives."""
        given = self.controller.challenge(self.door.id, of)
        return given.nonce, given.ttl


@contextlib.asynccontextmanager
async def _built(position: tuple[float, float]) -> AsyncIterator[PlayedBuilding]:
    key = _new_key()
    with tempfile.TemporaryDirectory() as folder:
        journal = await asyncio.to_thread(Journal.open, Path(folder) / "journal.db", lambda _: key)
        try:
            building = PlayedBuilding(journal, key, position)
            try:
                yield building
            finally:
                await building.controller.stop()
        finally:
            await asyncio.to_thread(journal.close)


def _new_key() -> SignerKey:
    return SignerKey(f"vestibule/conformance-{os.urandom(4).hex()}", Ed25519PrivateKey.generate())


# ---- the play ----


async def play(
    url: URL,
    code: EnrolmentCode,
    patience: Patience,
    position: tuple[float, float] = (0.0, 0.0),
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Return what a cloud does and what it should, having used up the code. ``tell`` is told what a person has to do
    now. ``position``: degrees, where the door is said to be.
    """
    async with _built(position) as building, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        steps = await _Play(session, url, code, building, patience, tell).steps()
    wrong = sum(step.result is Result.REFUSED for step in steps)
    unseen = sum(step.result is Result.CANNOT_BE_SAID for step in steps)
    also = f" {unseen} could not be looked at." if unseen else ""
    many = "One requirement is" if wrong == 1 else f"{wrong} requirements are"
    verdict = f"{many} not met.{also}" if wrong else f"All that was looked at is as it has to be.{also}"
    return Report(f"What the cloud at {url} does:", tuple(steps), verdict)


class _Over(Exception):
    """There is nothing more to be looked at."""


@dataclass
class _Play:
    session: aiohttp.ClientSession
    url: URL
    code: EnrolmentCode
    building: PlayedBuilding
    patience: Patience
    tell: Callable[[str], None]
    done: list[Step] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    hellos: list[datetime] = field(default_factory=list)
    issuer: Issuer | None = None

    async def steps(self) -> list[Step]:
        """Play, and return what was seen."""
        quiet = asyncio.get_running_loop().create_task(self._says_nothing())
        try:
            await self._play()
            self.done.append(await quiet)
        except _Over:
            pass
        finally:
            quiet.cancel()
        return self.done

    async def _play(self) -> None:
        self._address()
        line, begin = await self._enrol()
        try:
            await self._other_hellos(begin)
            line = await self._drivers(line)
            line = await self._daily_lists(line)
            line = await self._never_issued(line)
            line = await self._takes_over(line)
            await self._nonsense(line)
            self._pinged()
        finally:
            await line.close()

    # ---- what is noted ----

    def _passed(self, clause: str, what: str, why: str = "") -> None:
        self.done.append(Step(clause, what, Result.PASSED, why=why))

    def _refused(self, clause: str, what: str, why: str, change: str, code: str | None = None) -> None:
        if not any(
            step.result is Result.REFUSED and (step.what, step.change) == (what, (change,)) for step in self.done
        ):
            self.done.append(Step(clause, what, Result.REFUSED, code, why, (change,)))

    def _unseen(self, clause: str, what: str, why: str) -> None:
        self.done.append(Step(clause, what, Result.CANNOT_BE_SAID, why=why))

    # ---- enrolment ----

    def _address(self) -> None:
        port = f":{self.url.port}" if self.url.port not in (443, None) else ""
        here = f"{self.url.host}{port}"
        if self.code.host == here:
            self._passed("G", "the enrolment code names this host")
        else:
            why = f"it names {self.code.host}, where buildings will go; this is {here}"
            self._unseen("G", "the enrolment code names this host", why)

    async def _dial(self) -> Line:
        try:
            async with asyncio.timeout(self.patience.answer):
                socket = await self.session.ws_connect(self.url, max_msg_size=16 * MAX_FRAME, autoping=True)
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            raise ConnectionError(str(err) or type(err).__name__) from err
        self.lines.append(line := Line(socket))
        return line

    async def _begun(self) -> tuple[Line, Begin]:
        """Return a connection and its first frame. Raises ConnectionError, Closed, Silent or Spoilt."""
        line = await self._dial()
        try:
            first = await line.hear(self.patience.answer)
            if not isinstance(first, Begin):
                raise Spoilt(f"the first frame is {_kind(first)}")
        except BaseException:
            await line.close()
            raise
        return line, first

    async def _enrol(self) -> tuple[Line, Begin]:
        tls, what = "TLS, with a certificate of the public web", "the cloud speaks first, with a number"
        try:
            line, begin = await self._begun()
        except (ConnectionError, Closed, Silent, Spoilt) as err:
            if isinstance(err.__cause__, aiohttp.ClientSSLError):
                change = "no controller goes on without a certificate for this host that any browser takes"
                self._refused("G", tls, _why(err), change)
                raise _Over from err
            change = 'send {"type":"nonce","n","iss","name"} as soon as a WebSocket is open'
            self._refused("G", what, _why(err), change)
            raise _Over from err
        if self.url.scheme == "wss":
            self._passed("G", tls)
        else:
            self._unseen("G", tls, "this is loopback")
        self._passed("G", what, f"{begin.name}, {begin.issuer}")
        self.issuer = begin.issuer
        self.hellos.append(datetime.now(UTC))
        await line.say(Greeting(self.building.hello(begin), self.code.secret))
        what = "a hello with the code's secret is answered with the keys"
        try:
            keys = await self._heard(line)
            if not isinstance(keys, Keys):
                raise Spoilt(f"it said {_kind(keys)} first")
        except (Closed, Silent, Spoilt) as err:
            await line.close()
            self._refused("G", what, _why(err), "enrol the controller, and send the keys frame before anything else")
            raise _Over from err
        self._passed("G", what)
        try:
            published = self._read(keys)
        except KeySetInvalid as err:
            await line.close()
            self.done.append(refused_set(err))
            raise _Over from err
        self._passed("E", "the root is the one of the enrolment code")
        self.done += set_steps(published, int(time.time()))
        self.building.trust(published, begin.name)
        return line, begin

    def _read(self, keys: Keys) -> KeySet:
        """Return the set of a frame; raise KeySetInvalid."""
        assert self.issuer is not None
        root = keyset.pin(self.issuer, keys.root, self.code.root)
        return keyset.read(keys.set, root, self.building.published, int(time.time()))

    def _read_again(self, keys: Keys) -> None:
        what = "keys that come again are the same, or newer"
        try:
            self._read(keys)
        except KeySetInvalid as err:
            change = refused_set(err).change[0]
            self._refused("E", what, "", change, err.reason)
        else:
            if not any(step.what == what for step in self.done):
                self._passed("E", what)

    async def _heard(self, line: Line, within: float | None = None) -> FromCloud:
        """Return the next frame that is no part of a list; those are kept."""
        ends = time.monotonic() + (self.patience.answer if within is None else within)
        while isinstance(frame := await line.hear(max(0.01, ends - time.monotonic())), IssuedPart):
            self.lists.append(frame.list)
        return frame

    # ---- hellos that are not ours, or not for now ----

    async def _other_hellos(self, first: Begin) -> None:
        building, stranger = self.building, _new_key()
        replayed = building.hello(first)
        of_stranger = Hello(stranger.verifier, first.issuer, b"", os.urandom(16), (), 0, None)

        def unknown(begin: Begin) -> str:
            return messages.write_hello(stranger, replace(of_stranger, nonce=begin.nonce))

        attacks: list[tuple[str, str, Callable[[Begin], Greeting]]] = [
            ("F 79", "a hello of an earlier connection is refused", lambda _: Greeting(replayed)),
            (
                "F 79",
                "a hello of an earlier connection is refused, with the secret too",
                lambda _: Greeting(replayed, self.code.secret),
            ),
            (
                "F 79",
                "a hello under this controller's name by another key is refused",
                lambda begin: Greeting(building.hello(begin, key=stranger)),
            ),
            ("F 79", "a hello of a controller that is not enrolled is refused", lambda begin: Greeting(unknown(begin))),
            (
                "G",
                "the code enrols no second controller",
                lambda begin: Greeting(unknown(begin), self.code.secret),
            ),
            (
                "G",
                "a code that was never given enrols nobody",
                lambda begin: Greeting(unknown(begin), os.urandom(16)),
            ),
            (
                "G",
                "a hello to another issuer is refused",
                lambda begin: Greeting(building.hello(begin, to=_ELSEWHERE)),
            ),
        ]
        numbers = [first.nonce]
        for clause, what, attack in attacks:
            try:
                line, begin = await self._begun()
            except (ConnectionError, Closed, Silent, Spoilt) as err:
                self._unseen(clause, what, f"no connection: {_why(err)}")
                continue
            numbers.append(begin.nonce)
            await line.say(attack(begin))
            await self._has_to_end(line, clause, what, "check it before anything else; close with 4003 or 4004")
        if len(set(numbers)) == len(numbers):
            self._passed("G", "each connection has a number of its own")
        else:
            change = "16 random bytes for each connection, or a recorded hello can be used again"
            self._refused("G", "each connection has a number of its own", "the same came twice", change)

    async def _has_to_end(
        self, line: Line, clause: str, what: str, change: str, whatever: tuple[type, ...] = ()
    ) -> None:
        try:
            code = await line.ends(self.patience.answer, whatever)
        except Silent:
            self._refused(clause, what, "it stayed open", change)
        except Spoilt as err:
            self._refused(clause, what, str(err), change)
        else:
            self._passed(clause, what, f"closed with {code}")
        finally:
            await line.close()

    # ---- a driver ----

    async def _drivers(self, line: Line) -> Line:
        """Answer drivers' requests, wrongly first and then rightly; return the connection that is left."""
        assert self.issuer is not None
        building, stranger = self.building, _new_key()
        here, door = self.issuer, building.door.id

        def challenge(key: SignerKey, nonce: str, at: DoorId, of: Issuer) -> str:
            return messages.write_challenge(key, SignedChallenge(building.key.verifier, at, of, nonce, 60))

        attacks: list[tuple[str, Callable[[str], str]]] = [
            ("a challenge that its controller has not signed", lambda n: challenge(stranger, n, door, here)),
            (
                "a challenge of another door",
                lambda n: challenge(building.key, n, new_door_id(os.urandom(16)), here),
            ),
            ("a challenge given to another issuer", lambda n: challenge(building.key, n, door, _ELSEWHERE)),
        ]
        nobody = f"no driver asked for the door within {self.patience.driver:g} s"
        for number, (what, wrong) in enumerate(attacks, 1):
            what = f"nothing is signed for {what}"
            self.tell(f"Ask for the door {door} now, {number} of {len(attacks) + 1}: this one has to fail.")
            ask, line = await self._asked(line)
            if ask is None:
                for later, _ in attacks[number - 1 :]:
                    self._unseen("F 79", f"nothing is signed for {later}", nobody)
                self._unseen("A.2", "a token that the building lets in", nobody)
                return line
            nonce, _ = building.challenge(here)
            await line.say(Challenge(ask.id, wrong(nonce)))
            line = await self._signs_nothing(line, what)
        self.tell(f"Ask for the door {door} now, {len(attacks) + 1} of {len(attacks) + 1}: this one opens.")
        ask, line = await self._asked(line)
        if ask is None:
            self._unseen("A.2", "a token that the building lets in", nobody)
            return line
        return await self._opens(line, ask)

    async def _asked(self, line: Line) -> tuple[AskChallenge | None, Line]:
        """Return the next request for a challenge of the door, None if there is none, and the connection."""
        ends = time.monotonic() + self.patience.driver
        while (left := ends - time.monotonic()) > 0:
            try:
                frame = await self._heard(line, left)
            except Silent:
                break
            except Closed:
                line = await self._again(line)
                continue
            except Spoilt as err:
                self._refused("G", "frames have exactly their members", str(err), "see docs/carriers.md, 5")
                continue
            if isinstance(frame, AskChallenge) and frame.door == self.building.door.id:
                return frame, line
            await self._unexpected(line, frame)
        return None, line

    async def _unexpected(self, line: Line, frame: FromCloud) -> None:
        match frame:
            case AskChallenge(id=number, door=door):
                await line.say(NoChallenge(number, Word.REFUSED))
                what = "it asks for doors of the hello only"
                self._refused("G", what, f"it asked for {door}", "a controller is asked for what it offers")
            case Unlock(id=number):
                await line.say(Outcome(number, Word.REFUSED, Code.NONCE_UNKNOWN))
                self._refused("A.2", "a token comes after its challenge", "one came without", "sign for a challenge")
            case Begin():
                self._refused("G", "the number comes once", "it came again", "send it first, and once")
            case Keys():
                self._read_again(frame)

    async def _signs_nothing(self, line: Line, what: str) -> Line:
        change = "verify the controller's signature, door and issuer before anything is signed, and close with 4005"
        try:
            while not isinstance(frame := await self._heard(line, self.patience.quiet), Unlock):
                await self._unexpected(line, frame)
        except Silent:
            self._passed("F 79", what, "nothing came")
        except Closed as closed:
            self._passed("F 79", what, f"closed with {closed.code}")
            return await self._again(line)
        except Spoilt as err:
            self._refused("F 79", what, str(err), change)
        else:
            await line.say(Outcome(frame.id, Word.REFUSED, Code.NONCE_UNKNOWN))
            self._refused("F 79", what, "a token came", change)
        return line

    async def _opens(self, line: Line, ask: AskChallenge) -> Line:
        building, what = self.building, "a signed challenge is answered with a token"
        assert self.issuer is not None
        nonce, ttl = building.challenge(self.issuer)
        given = SignedChallenge(building.key.verifier, building.door.id, self.issuer, nonce, ttl)
        await line.say(Challenge(ask.id, messages.write_challenge(building.key, given)))
        try:
            while not isinstance(frame := await self._heard(line, self.patience.token), Unlock):
                await self._unexpected(line, frame)
        except (Closed, Silent, Spoilt) as err:
            self._refused("G", what, _why(err), "sign for it at once: it lives for a minute")
            return await self._again(line) if isinstance(err, Closed) else line
        self._passed("G", what)
        await self._judge(line, frame, nonce)
        what = "a token is sent once"
        try:
            again = await self._heard(line, self.patience.quiet)
        except (Closed, Silent, Spoilt) as err:
            self._passed("G", what)
            return await self._again(line) if isinstance(err, Closed) else line
        if isinstance(again, Unlock):
            code = (await building.controller.present(again.token, Principal(self.issuer))).code
            await line.say(Outcome(again.id, code.word, code))
            self._refused("G", what, f"another one came: {code}", "one token for one request, and never a second time")
        else:
            await self._unexpected(line, again)
            self._passed("G", what)
        return line

    async def _judge(self, line: Line, unlock: Unlock, nonce: str) -> None:
        """Let the controller decide, answer what came of it, and note each step."""
        building, text = self.building, unlock.token
        keys = building.controller.building.keys
        known = Known(keys, int(time.time()), self.issuer, building.door.id, nonce)
        alone = judging.judge(text, known)
        decision = await building.controller.present(text, Principal(self.issuer), at=building.door.id)
        code = decision.code
        # A code that is not told by its own name is not told on a link.
        await line.say(Outcome(unlock.id, code.word, code if code.told == code.value else None))
        verdict = Verdict(code, alone.genuine, alone.unlock, decision.limit)
        report = judging.report(text, known, verdict, live=True)
        self.done += report.steps
        self.done += [
            Step("A.2", "besides", Result.REFUSED, change=(what,)) for what in report.also
        ]  # each of them would be refused by itself
        if code is Code.GRANTED and alone.unlock is not None:
            jti = b64url.decode(alone.unlock.claims.jti.encode())
            await line.say(Accepted(jti, building.door.id, code))

    # ---- lists ----

    async def _daily_lists(self, line: Line) -> Line:
        self._lists_by_themselves()
        what = "the list of a day that is over comes when it is asked for, whole"
        day = _last_listed(datetime.now(UTC) - _CLOCKS_APART)
        parts: dict[int, Issued] = {}
        await line.say(AskList(day))
        until = time.monotonic() + self.patience.answer
        try:
            while not _is_whole(parts):
                if not isinstance(frame := await line.hear(max(0.0, until - time.monotonic())), IssuedPart):
                    await self._unexpected(line, frame)
                    continue
                part = self._issued(frame.list)
                if part.day == day:
                    parts[part.part] = part
        except KeySetInvalid as err:
            self.done.append(replace(refused_set(err), what=what))
            return line
        except (Silent, Closed, Spoilt) as err:
            change = "send all parts for this controller, signed by the list key; one empty part if there was nothing"
            self._refused("E", what, _why(err), change, "no_list")
            return await self._again(line) if isinstance(err, Closed) else line
        if len({(part.parts, part.issued_at) for part in parts.values()}) > 1:
            change = "all parts of a list have the same parts and iat"
            self._refused("E", what, "its parts are of several lists", change)
        else:
            self._passed("E", what, f"{day}: {len(parts)} {'part' if len(parts) == 1 else 'parts'}")
        return line

    def _lists_by_themselves(self) -> None:
        what = "after a hello, the lists of the last two days come by themselves"
        days: dict[date, dict[int, Issued]] = {}
        try:
            for part in map(self._issued, self.lists):
                days.setdefault(part.day, {})[part.part] = part
        except KeySetInvalid as err:
            self.done.append(replace(refused_set(err), what=what))
            return
        # The cloud's clock may be before or behind the ten minutes after midnight when ours is not.
        lasts = {_last_listed(hello + apart) for hello in self.hellos for apart in (-_CLOCKS_APART, _CLOCKS_APART)}
        missing = [
            [day for day in (last - timedelta(days=1), last) if not _is_whole(days.get(day, {}))]
            for last in sorted(lasts)
        ]
        if not all(missing):
            self._passed("E", what)
        else:
            without = ", ".join(map(str, missing[0]))
            self._refused("E", what, f"without {without}", "a controller that was away has to catch up", "no_list")

    def _issued(self, text: str) -> Issued:
        """Return a part of a list; raise KeySetInvalid."""
        published = self.building.published
        assert published is not None
        return keyset.read_issued(text, published, self.building.key.verifier, int(time.time()))

    async def _never_issued(self, line: Line) -> Line:
        jti, what = os.urandom(16), "an accepted jti that was never issued raises an alarm"
        await line.say(Accepted(jti, self.building.door.id, Code.GRANTED))
        try:
            await self._heard(line, self.patience.quiet)
        except Closed as closed:
            why = f"it closed the link with {closed.code}"
            self._refused("F 70", what, why, "alarm, and keep the link: the building has done nothing wrong")
            return await self._again(line)
        except Silent, Spoilt:
            pass
        self._unseen("F 70", what, f"not to be seen from here: look for an alarm about {b64url.encode(jti)}")
        return line

    # ---- connections ----

    async def _again(self, line: Line) -> Line:
        """Return a new connection in place of one that was closed."""
        await line.close()
        return await self._come_back()

    async def _come_back(self) -> Line:
        """Return a new connection of the same controller."""
        what = "an enrolled controller comes back without the secret"
        line = None
        try:
            line, begin = await self._begun()
            self.hellos.append(datetime.now(UTC))
            await line.say(Greeting(self.building.hello(begin)))
            if not isinstance(frame := await self._heard(line), Keys):
                raise Spoilt(f"it said {_kind(frame)} first")
            self._read_again(frame)
        except (ConnectionError, Closed, Silent, Spoilt) as err:
            if line is not None:
                await line.close()
            self._refused("G", what, _why(err), "it may do so at any time; send the keys frame first")
            raise _Over from err
        if not any(step.what == what for step in self.done):
            self._passed("G", what)
        return line

    async def _takes_over(self, line: Line) -> Line:
        what, change = "a second connection of the same controller ends the first", "close the first one with 4001"
        after = await self._come_back()
        try:
            code = await line.ends(self.patience.answer, _ANYTHING)
        except Silent:
            self._refused("G", what, "both stayed open", change)
        except Spoilt as err:
            self._refused("G", what, str(err), change)
        else:
            self._passed("G", what, f"closed with {code}")
        finally:
            await line.close()
        return after

    async def _nonsense(self, line: Line) -> None:
        change = "close with 4005: whoever sends that is no controller, or not ours"
        await line.say_raw('{"type":"outcome","id":1,"word":"perhaps"}')
        await self._has_to_end(line, "G", "a frame of another form ends the link", change, _ANYTHING)
        line = await self._again(line)
        await line.say_raw('{"type":"pong","more":"' + "x" * MAX_FRAME + '"}')
        await self._has_to_end(line, "G", f"a frame of more than {MAX_FRAME} bytes ends the link", change, _ANYTHING)

    def _pinged(self) -> None:
        if any(line.pings for line in self.lines):
            self._passed("G", "it pings")
        else:
            self._unseen("G", "it pings", "this was too short a time")

    async def _says_nothing(self) -> Step:
        what = "a connection that says no hello is closed"
        try:
            line, _ = await self._begun()
        except (ConnectionError, Closed, Silent, Spoilt) as err:
            return Step("G", what, Result.CANNOT_BE_SAID, why=f"no connection: {_why(err)}")
        try:
            code = await line.ends(self.patience.silent)
        except Silent:
            change = ("close it after some seconds: anybody can open connections",)
            return Step("G", what, Result.REFUSED, why=f"still open after {self.patience.silent:g} s", change=change)
        except Spoilt as err:
            return Step("G", what, Result.REFUSED, why=str(err), change=("say nothing before the hello",))
        finally:
            await line.close()
        return Step("G", what, Result.PASSED, why=f"closed with {code}")


def _last_listed(at: datetime) -> date:
    """Return the last day whose list is due: a list comes ten minutes after its day."""
    return (at - timedelta(days=1, seconds=keyset.AFTER_MIDNIGHT)).date()


def _is_whole(parts: dict[int, Issued]) -> bool:
    return bool(parts) and len(parts) >= next(iter(parts.values())).parts


def _why(err: Exception) -> str:
    return "nothing came" if isinstance(err, Silent) else str(err) or type(err).__name__
