"""docs/doorstrike-capture.txt: one conversation from the first power-up to a QUERY after a lost link, to check against.

``record`` lets the real machines of both ends talk on a bench and writes down what goes over the air, what is random
and what moves. ``rendered`` explains such a record line by line, with noise.py and not with the library that made it,
and ``parsed`` takes the record out of the text again: so the text alone holds all that it takes to decode it.

    python -m tests.core.doorstrike.capture > docs/doorstrike-capture.txt
"""

import hashlib
import re
import textwrap
from dataclasses import dataclass, field

from tests.core.doorstrike import noise
from tests.core.doorstrike.bench import Bench
from vestibule_core.doorstrike import frames
from vestibule_core.doorstrike.client import Paired
from vestibule_core.doorstrike.device import ButtonHeld, ContactIs
from vestibule_core.doorstrike.effects import Disconnect, HoldRelay, Notify, Persist, StartPulse, StopRelay
from vestibule_core.doorstrike.fragments import LAST, Reassembler
from vestibule_core.doorstrike.outcome import Outcome, queried
from vestibule_core.doorstrike.pairing import Label, slot_psk
from vestibule_core.doorstrike.wire import (
    ERR,
    HELLO_REQ,
    NO_SPEND,
    Advertisement,
    Caps,
    Command,
    Contact,
    Event,
    EventKind,
    Hello,
    Op,
    State,
)
from vestibule_core.model import issuer
from vestibule_core.token import spend_id

CODE = "7K3M-9QXT-2VWH-PD4R-8ZB0"
STRIKE_ID = bytes.fromhex("a1b2c3d4e5f60718")
CAPS = Caps.CONTACT | Caps.TAMPER
ISSUER = issuer("https://v.carrier.example")
PACKET = 1 / 32
"""Seconds that a packet to the strike takes; no fraction of it is rounded."""

HEAD = """\
DoorStrike/1: a conversation, recorded from the state machines of both ends, with every key and every random value.
Made by tests/core/doorstrike/capture.py; a test makes it anew and compares. What it all means: doorstrike.md.

A line is   TIME LINK WHO WHAT   with TIME in seconds since the first power-up, and LINK the connection's number.

  C>S writes    a fragment written to RX with response;  "C>S sends" without
  S>C notifies  a fragment notified by TX
  random        what the random number generator gave
  strike keeps  a piece is on the disk before the next line happens (its form is each strike's own business)
  =             what it says; what is in [ ] was encrypted
  #             what happens, and why

Bytes are hexadecimal, in the order in which they are sent. n is the counter of the AEAD's nonce.

"""


class RecordingBench(Bench):
    """A bench that writes down what happens, and takes its random numbers from a hash that counts."""

    def __init__(self):
        self.lines = []
        self.drawn = {"client": 0, "strike": 0}
        self.advertised = None
        super().__init__(caps=CAPS)

    def note(self, link, who, what):
        self.lines.append((f"{self.now - 1000.0:.3f}", str(link), who, what))

    def comment(self, text):
        self.lines.append(("", "", "#", text))

    def draw(self, who):
        def some(size):
            self.drawn[who] += 1
            drawn = hashlib.sha256(f"{who} {self.drawn[who]}".encode()).digest()[:size]
            self.note("-", who, f"random {drawn.hex()}")
            return drawn

        return some

    def power_up(self):
        self.label, self.random = Label.typed(STRIKE_ID, CODE), self.draw("strike")
        self.note("-", "strike", f"label {self.label.qr}")
        super().power_up()
        self.look()

    def tell(self, method, *args):
        if method == "pulse_complete":
            self.note("-", "strike", "relay off")
        super().tell(method, *args)
        self.look()

    def look(self):
        if (seen := self.strike.advertisement.encode()) != self.advertised:
            self.advertised = seen
            self.note("-", "strike", f"advertises {seen.hex()}")

    def sense(self, what):
        match what:
            case ButtonHeld(seconds):
                self.note("-", "strike", f"button held for {seconds:g} s")
            case ContactIs(contact):
                self.note("-", "strike", f"contact {contact.name.lower()}")
        super().sense(what)

    def _perform(self, effect):
        match effect:
            case Persist(part):
                self.note("-", "strike", f"keeps {part}")
            case StartPulse(seconds):
                self.note("-", "strike", f"relay on for {seconds:g} s")
            case Notify(link, fragments):
                for fragment in fragments:
                    self.note(link, "S>C", f"notifies {fragment.hex()}")
            case Disconnect(link):
                self.note(link, "strike", "hangs up")
            case HoldRelay() | StopRelay():
                raise AssertionError("not in this conversation")
        return super()._perform(effect)

    def connect(self, paired, size=244, **how):
        self.note(
            self.connections + 1, "client", f"connects as slot {paired.slot}, ATT_MTU {size + 3}, subscribes to TX"
        )

        def carry(to_strike, fragment):
            if to_strike:
                self.now += PACKET
                verb = "writes" if fragment[0] & LAST else "sends"
                self.note(wire.number, "C>S", f"{verb} {fragment.hex()}")
            return [fragment]

        strikes, self.random = self.random, self.draw("client")
        wire = super().connect(paired, size, tap=carry, **how)
        self.random = strikes
        return wire

    def leave(self, wire):
        self.note(wire.number, "client", "disconnects")
        wire.close()


def record():
    """Return the lines of the conversation: (time, link, who, what)."""
    bench = RecordingBench()
    spend = [spend_id(ISSUER, letter * 22) for letter in "ABCD"]

    bench.comment("Pairing, on a link of the smallest packets. Somebody inside holds the button.")
    bench.wait(2)
    bench.sense(ContactIs(Contact.CLOSED))
    bench.wait(2)
    bench.sense(ButtonHeld(3))
    bench.wait(4)
    wire = bench.connect(Paired(STRIKE_ID, 0, bench.label.psk), size=20)
    wire.ask(Command(Op.QUERY))
    rand_c = bench.draw("client")(32)
    added = frames.SlotAdded.parse(
        wire.ask(Command(Op.SLOT_ADD), frames.SlotAdd("Home Assistant", rand_c).encode()).body
    )
    bench.leave(wire)
    paired = Paired(STRIKE_ID, added.slot, slot_psk(STRIKE_ID, added.slot, rand_c, added.rand_s))

    bench.comment("The new slot is used at once, so that it stays; and the client reads what has happened so far.")
    bench.wait(1)
    wire = bench.connect(paired)
    wire.ask(Command(Op.QUERY))
    wire.ask(Command(Op.EVENTS), frames.events_from(1))
    bench.leave(wire)

    bench.comment(
        "The first unlock: there is no connection, so it comes with the handshake. The session is kept this time."
    )
    bench.wait(60)
    wire = bench.connect(paired, keep=True)
    wire.ask(Command(Op.UNLOCK, 50, spend[0]))
    bench.comment("The relay's timer runs out, the driver opens the door and closes it: events.")
    bench.wait(2)
    bench.sense(ContactIs(Contact.OPEN))
    bench.wait(4)
    bench.sense(ContactIs(Contact.CLOSED))

    bench.comment("Nothing to say: PING, 20 s after the client sent something.")
    bench.wait(20)

    bench.comment("A second unlock, within the session: one message there, one back.")
    bench.wait(10)
    wire.ask(Command(Op.UNLOCK, 320, spend[1]))
    bench.wait(4)

    bench.comment("A third one. The strike obeys, and the link is lost before its answer arrives.")
    wire.send(Command(Op.UNLOCK, 50, spend[2]))
    while wire.to_strike:
        wire.step()
    bench.note(wire.number, "client", "lost the link; what was notified last did not arrive")
    heard = wire.events[-1].seq
    wire.cut()
    unanswered = wire.ended.unanswered

    bench.comment(
        "It may have been obeyed, so it is not sent again. Six seconds later nothing of it can be under way any more."
    )
    bench.wait(6)
    wire = bench.connect(paired)
    state = wire.ask(Command(Op.QUERY, 0, unanswered.spend_id)).state
    assert queried(state, sent_ago=6.0) is Outcome.DONE
    bench.comment("COMPLETE: it did open, once. The events say when; none of them is a BOOT.")
    wire.ask(Command(Op.EVENTS), frames.events_from(heard + 1))
    bench.leave(wire)
    assert bench.pulses == [0.5, 3.2, 0.5]
    return bench.lines


# ---- what it says ----


@dataclass
class Heard:
    """What is known of one connection."""

    to_strike: Reassembler = field(default_factory=Reassembler)
    to_client: Reassembler = field(default_factory=Reassembler)
    hello: bytes = b""
    handshake: noise.Handshake | None = None
    ready: bool = False
    sent: int = 0
    answered: int = 0
    rand_c: bytes = b""


def _id(some):
    return "-" if some == NO_SPEND else some.hex()


def _command(raw):
    command = Command.parse(raw)
    return f"{Op(command.op).name} pulse={command.pulse_cs} spend={_id(command.spend_id)}"


def _state(raw):
    state = State.parse(raw)
    return (
        f"{state.result.name} relay={state.relay.name} contact={state.contact.name}"
        f" tampered={int(state.tampered)} bolt={int(state.bolt_secured)} {state.spend_state.name} gen={state.slots_gen}"
        f" battery={'-' if state.battery is None else state.battery} evt_seq={state.evt_seq}"
        f" spend={_id(state.spend_id)}"
    )


def _event(event):
    return (
        f"event {event.seq} at {event.uptime_ms} ms: {EventKind(event.kind).name} value={event.value}"
        f" spend={_id(event.spend_id)}"
    )


class Reader:
    """Explains lines one after the other, from nothing but the lines."""

    def __init__(self):
        self.links = {}
        self.random = {}
        self.psks = {}
        self.strike_id = b""

    def read(self, link, who, what):
        """Return what a line says."""
        word, _, rest = what.partition(" ")
        match who, word:
            case "strike", "label":
                label = Label.scanned(rest)
                self.strike_id, self.psks[0] = label.strike_id, label.psk
                return [f"psk_pair {label.psk.hex()}"]
            case "strike", "advertises":
                seen = Advertisement.parse(bytes.fromhex(rest))
                flags = "+".join(flag.name for flag in seen.flags) or "-"
                return [f"version={seen.version} flags={flags} evt_seq={seen.evt_seq} strike_id={seen.strike.hex()}.."]
            case _, "random":
                self.random[who] = bytes.fromhex(rest)
            case "client", "connects":
                self.links[link] = Heard()
            case "C>S", _:
                heard = self.links[link]
                message = heard.to_strike.feed(bytes.fromhex(rest), 0.0)
                return [] if message is None else self._to_strike(heard, message)
            case "S>C", _:
                heard = self.links[link]
                message = heard.to_client.feed(bytes.fromhex(rest), 0.0)
                return [] if message is None else self._to_client(heard, message)
        return []

    def _to_strike(self, heard, message):
        if message == HELLO_REQ:
            return ["HELLO_REQ"]
        if not heard.ready:
            slot = message[1]
            heard.handshake = noise.Handshake(self.psks[slot], heard.hello, slot)
            command = heard.handshake.first(message, self.random["client"])
            return [
                f"HS1 slot={slot} e={message[2:34].hex()}",
                f"[{command.hex()}] under {heard.handshake.hs1_key.hex()}",
                _command(command),
            ]
        plaintext = noise.unsealed(heard.handshake.client_key, heard.sent, message[1:])
        heard.sent += 1
        request = frames.Request.parse(plaintext)
        said = [
            f"DATA n={heard.sent - 1} [{plaintext.hex()}]",
            f"{_command(plaintext[:20])} not_after={request.not_after}",
        ]
        match request.command.op:
            case Op.SLOT_ADD:
                wish = frames.SlotAdd.parse(request.body)
                heard.rand_c = wish.rand_c
                said.append(f"name={wish.name!r} rand_c={wish.rand_c.hex()}")
            case Op.EVENTS:
                said.append(f"from={frames.open_events_from(request.body)}")
        return said

    def _to_client(self, heard, message):
        if message == ERR:
            return ["ERR"]
        if not heard.hello:
            heard.hello, hello = message, Hello.parse(message)
            caps = "+".join(cap.name for cap in hello.caps)
            return [
                f"HELLO version={hello.version} caps={caps} strike_id={hello.strike_id.hex()} nonce={hello.nonce.hex()}"
            ]
        if not heard.ready:
            heard.ready = True
            state = heard.handshake.second(message, self.random["strike"])
            return [
                f"HS2 e={message[1:33].hex()}",
                f"[{state.hex()}] under {heard.handshake.hs2_key.hex()}",
                _state(state),
                f"h          {heard.handshake.h.hex()}",
                f"client_key {heard.handshake.client_key.hex()}",
                f"strike_key {heard.handshake.strike_key.hex()}",
            ]
        plaintext = noise.unsealed(heard.handshake.strike_key, heard.answered, message[1:])
        heard.answered += 1
        said = [f"DATA n={heard.answered - 1} [{plaintext.hex()}]"]
        reply = frames.from_strike(plaintext)
        if isinstance(reply, Event):
            return [*said, _event(reply)]
        said.append(f"reply to {Op(reply.op).name}: {_state(plaintext[2:27])}")
        match reply.op:
            case Op.SLOT_ADD:
                added = frames.SlotAdded.parse(reply.body)
                self.psks[added.slot] = slot_psk(self.strike_id, added.slot, heard.rand_c, added.rand_s)
                said += [f"slot={added.slot} rand_s={added.rand_s.hex()}", f"slot_psk {self.psks[added.slot].hex()}"]
            case Op.EVENTS:
                said += map(_event, frames.open_events(reply.body))
        return said


WIDTH = 130


def _wrapped(text, first, later):
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, break_long_words=True
    )


def rendered(lines):
    """Return the text of the capture."""
    reader, text = Reader(), HEAD
    for time, link, who, what in lines:
        if who == "#":
            text += "\n" + "\n".join(_wrapped(what, "# ", "# ")) + "\n\n"
            continue
        text += "\n".join(_wrapped(what, f"{time:>9} {link} {who:<6} ", " " * 12 + "+ ")) + "\n"
        for said in reader.read(link, who, what):
            text += "\n".join(_wrapped(said, " " * 19 + "= ", " " * 19 + "  ")) + "\n"
    return text


_LINE = re.compile(r" *(\d+\.\d{3}) (\S) (\S+) +(\S.*)")


def parsed(text):
    """Return the lines of a capture's text, without what was explained."""
    lines = []
    for row in text.removeprefix(HEAD).splitlines():
        if row.startswith("# "):
            if lines and lines[-1][2] == "#":
                *before, said = lines.pop()
                lines.append((*before, f"{said} {row[2:]}"))
            else:
                lines.append(("", "", "#", row[2:]))
        elif row.startswith(" " * 12 + "+ "):
            *before, what = lines.pop()
            lines.append((*before, what + row[14:]))  # only bytes are that long
        elif found := _LINE.fullmatch(row):
            lines.append(found.groups())
    return lines


if __name__ == "__main__":
    print(rendered(record()), end="")
