"""``vestibule-gateway run``, ``check`` and the commands that look after a gateway that runs.

What is asked of the gateway goes through its control socket (control.py). The heavy part of the program is loaded only
by the commands that need it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vestibule_core.errors import IdentityMissing, VestibuleError

from .source import Unusable
from .toml_table import ConfigError

if TYPE_CHECKING:
    from .state import Files

DEFAULT_CONFIG: Final = Path("/etc/vestibule/gateway.toml")
_EXTRAS: Final = {
    "aioesphomeapi": "esphome",
    "bleak": "bluetooth",
    "bleak_retry_connector": "bluetooth",
    "pymodbus": "modbus",
}
_LOOK_EVERY: Final = 0.5
_WRITTEN_DOWN: Final = 5.0
"""Seconds from the end of the window in which a client that used it is written down."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them."""

    def command(name: str, run: Any, what: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        where = f"what hangs on this machine (default: {DEFAULT_CONFIG})"
        parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=where)
        parser.set_defaults(run=run)
        return parser

    command("run", _run, "be the gateway, until told to stop")
    command("check", _check, "say whether it could start: reads everything, tries the hardware, moves nothing")
    pair = command("pair", _pair, "let a client in: shows a code for ten minutes, and waits until it was used")
    pair.add_argument(
        "--replace", action="store_true", help="the new client administers the gateway, and every other is removed"
    )
    pair.add_argument(
        "--trust", action="store_true", help="what the client allows from now on holds at once, without the button"
    )
    command("status", _status, "say how the gateway is, who may use it, and what waits")
    command("approve", _approve, "let what waits for somebody at the gateway hold at once, as its button does")
    keys = command("keys", _keys, "show by what the gateway is known, or change its certificate")
    keys.add_argument(
        "do",
        choices=("show", "next", "switch", "replace"),
        nargs="?",
        default="show",
        help="next: announce another certificate to all clients; switch: use it from the next start on; replace: make "
        "another one unannounced, so that every client has to be paired again",
    )
    carrier = command("carrier", _carrier, "look after the links to carriers' clouds")
    carrier.add_argument(
        "do",
        choices=("list", "add", "remove", "approve"),
        nargs="?",
        default="list",
        help="add: with the enrolment code that the carrier gave you; remove: end the link; approve: let a carrier in "
        "again that was locked out",
    )
    carrier.add_argument(
        "which",
        metavar="CODE|ISSUER",
        nargs="?",
        help="add: the code, which is asked for if it is not here; remove, approve: https://..., as `list` shows it",
    )
    backup = command("backup", _backup, "write what makes it the same gateway again into a tar, while it works")
    backup.add_argument("file", metavar="FILE", help="a new file, or - for standard output, to be encrypted say")
    strike = command("pair-strike", _pair_strike, "pair the Bluetooth strike of a door, with the code on its label")
    strike.add_argument("door", metavar="DOOR", help="its name in the configuration: [door.NAME]")


@contextmanager
def explained() -> Iterator[None]:
    """Turn what can be wrong at a gateway into words for whoever typed the command. The one place for it."""
    from .state import StateUnusable
    from .tls import CertificateUnusable

    try:
        yield
    except (ConfigError, StateUnusable, CertificateUnusable) as err:
        raise Unusable(str(err)) from err
    except IdentityMissing as err:
        raise Unusable(f"{err}, but it signed the journal: restore it from a backup, or move the journal away") from err
    except VestibuleError as err:
        raise Unusable(str(err)) from err
    except ModuleNotFoundError as err:
        extra = _EXTRAS.get((err.name or "").partition(".")[0])
        if extra is None:
            raise
        raise Unusable(f"this needs more packages: pip install 'vestibule-gateway[{extra}]'") from err


def _run(given: argparse.Namespace) -> int:
    from . import log
    from .config import read_config

    with explained():
        config = read_config(given.config)
        log.start(config.log)
        from .app import serve

        asyncio.run(serve(config))
    return 0


def _check(given: argparse.Namespace) -> int:
    with explained():
        from .check import check

        return asyncio.run(check(given.config))


# ---- of a gateway that runs ----


def _pair(given: argparse.Namespace) -> int:
    ask = _asking(given)
    try:
        paired = _paired(ask, ask("POST", "/pair", {"replace": given.replace, "trust": given.trust}))
    except KeyboardInterrupt:
        ask("DELETE", "/pair")
        print("closed      nobody was paired")
        raise
    print(f"paired      {_shown(paired['name'])} ({paired['id']}), may {_scopes(paired)}")
    return 0


def _paired(ask: Any, window: dict[str, Any]) -> dict[str, Any]:
    """Show the code of a window and return who used it; raise Unusable if nobody did."""
    print(f"code        {window['code']}")
    print(f"good for    {_span(window['seconds'])}, once")
    print("In Home Assistant: Settings, Devices & services, Add integration, Vestibule, a gateway.", flush=True)
    while (state := ask("GET", "/pair"))["window"] == window["window"]:
        time.sleep(_LOOK_EVERY)
    until = time.monotonic() + _WRITTEN_DOWN
    while state["window"] is None and state["paired"] is None and time.monotonic() < until:
        time.sleep(_LOOK_EVERY)
        state = ask("GET", "/pair")
    if state["window"] is not None:
        raise Unusable("nobody was paired: another code was asked for since, which is the one that counts")
    if (paired := state["paired"]) is None:
        raise Unusable("nobody was paired: the time is over, or the window was closed. Try again")
    return dict(paired)


def _status(given: argparse.Namespace) -> int:
    told = _asking(given)("GET", "/status")
    print(_table(_told(told)))
    return 0


def _told(told: dict[str, Any]) -> Iterator[Sequence[str]]:
    yield "gateway", _shown(told["name"]), f"id {told['id']}, version {told['version']}, up {_span(told['uptime'])}"
    yield "address", f"port {told['port']}", f"certificate SHA-256 {told['certificate']}"
    if (following := told["next_certificate"]) is not None:
        yield "", "next", f"certificate SHA-256 {following}"
    if told["lockdown"]:
        yield "lockdown", "ON", "nobody is let in"
    for door in told["doors"]:
        yield "door", _shown(door["name"]), ", ".join(_door(door))
    if not told["clients"]:
        yield "client", "none", "unpaired, so it opens nothing: `vestibule-gateway pair` lets one in"
    for client in told["clients"]:
        yield "client", _shown(client["name"]), f"may {_scopes(client)}; {client['id']}"
        if (waiting := client["waiting"]) is not None:
            yield "  waiting", _span(waiting["seconds_left"]), f"may {_rights(waiting)}"
    if (window := told["window"]) is not None:
        yield "pairing", "open", f"for {_span(window)}"
    policy = told["policy"]
    yield "policy", f"version {policy['version']}", ", ".join(map(_shown, policy["carriers"])) or "no carrier"
    if (waiting := policy["waiting"]) is not None:
        for what in waiting["why"]:
            yield "  waiting", _span(waiting["seconds_left"]), _shown(what)
    for one in told["carriers"]:
        yield from _link(one)
    waits = "waits for the button, `approve`, or 24 h"
    yield "widening", "trusted" if told["trusted"] else "not trusted", "holds at once" if told["trusted"] else waits
    journal = told["journal"]
    yield "journal", f"{journal['entries']} entries", f"{journal['bytes'] / 2**20:.1f} MiB"
    if journal["failed"]:
        yield "", "FAILED", "no token opens a door: see the log, mend the disk, restart"
    if told["restored"]:
        yield "", "restored", "from a backup, or killed while one was made: confirm it in Home Assistant"
    if told["disputed"]:
        yield (
            "",
            "NOT WHOLE",
            "a witness holds other entries: no token opens a door until that is confirmed in Home Assistant",
        )
    if not told["clock_trusted"]:
        yield "clock", "WRONG", "earlier than it was: doors with hours let no token in"
    for code, count in told["refused"].items():
        yield "refused", str(count), code


def _door(door: dict[str, Any]) -> Iterator[str]:
    yield door["mode"]
    yield door["lock"]
    yield "reachable" if door["reachable"] else f"NOT REACHABLE: {door['reason']}"
    if door["alarm"] != "none":
        yield door["alarm"]
    if door["tampered"]:
        yield "TAMPERED"
    if not door["deliveries"]:
        yield "no deliveries"
    yield from (f"{sensor} {sense}" for sensor, sense in door["senses"].items())
    yield f"[door.{door['key']}] {door['id']}"


def _approve(given: argparse.Namespace) -> int:
    ask = _asking(given)
    if waited := list(_waiting(ask("GET", "/approve"))):
        print("\n".join(f"waits     {what}" for what in waited), flush=True)
    done = ask("POST", "/approve", {})
    if not done["approved"]:
        print("nothing waited")
    elif left := list(_waiting(done)):  # asked for in the same moment
        print("\n".join(["approved: it holds now, but for", *(f"waits     {what}" for what in left)]))
    else:
        print("approved: it holds now")
    return 0


def _waiting(told: dict[str, Any]) -> Iterator[str]:
    for why in told["policy"]:
        yield _shown(why)
    for client in told["clients"]:
        yield f"client {_shown(client['name'])} ({client['id']}): may {_rights(client)}"


def _keys(given: argparse.Namespace) -> int:
    if given.do == "next":
        announced = _asking(given)("POST", "/next-certificate", {})
        print(f"announced   SHA-256 {announced['fingerprint']}")
        print("Clients know it as soon as they are connected. When all have been: `keys switch`, then restart.")
        return 0
    from vestibule_core import identity

    from . import tls
    from .config import read_config
    from .state import Files, State, StateUnusable, read_id, signs_as

    with explained():
        files = Files(read_config(given.config).state)
        if (gateway := read_id(files)) is None:
            raise StateUnusable(f"{files.folder} is empty: keys are made at the first start")
        if given.do == "switch":
            print(f"used from the next start on: SHA-256 {tls.switch(files.tls, files.next_tls).fingerprint.hex()}")
            return 0
        if given.do == "replace":
            with closing(State.open(files.folder)):  # not under a gateway that runs
                print(f"used from now on: SHA-256 {tls.replace(files.tls, gateway).fingerprint.hex()}")
            print("Every client takes the gateway for an impostor until it is paired again.")
            return 0
        signer = identity.keep(files.identity, signs_as(gateway), make=False)
        rows = [("id", gateway), ("signs as", str(signer.verifier))]
        for name, path in (("certificate", files.tls), ("next", files.next_tls)):
            if (certificate := tls.look(path)) is not None:
                rows.append((name, f"SHA-256 {certificate.fingerprint.hex()}"))
        print(_table(rows))
    return 0


def _carrier(given: argparse.Namespace) -> int:
    ask = _asking(given)
    match given.do:
        case "list":
            told = ask("GET", "/carriers")["carriers"]
            print(_table(row for one in told for row in _link(one)) if told else "no carrier is linked")
        case "add":
            code = given.which or _typed("code: ")
            one = ask("POST", "/carriers", {"code": code, "issuer": None})
            print(f"carrier     {_shown(one['name'])} ({one['issuer']}), its cloud at {one['host']}")
            if one["let_in"] is None:
                print("It may open nothing until Home Assistant lets this carrier in at doors of this gateway.")
            else:
                print(
                    f"Home Assistant lets it in as {_shown(one['let_in'])}. From now on its cloud says with which keys."
                )
            if _typed("Is this who gave you the code? yes or no: ") != "yes":
                raise Unusable("nothing was linked")
            ask("POST", "/carriers", {"code": code, "issuer": one["issuer"]})
            print(f"linked      {_shown(one['name'])} ({one['issuer']})")
        case _ if given.which is None:
            raise Unusable(f"which carrier? `carrier {given.do} https://...`, as `carrier list` shows it")
        case "remove":
            one = ask("DELETE", "/carriers", {"issuer": given.which})
            print(f"removed     {_shown(one['name'])} ({one['issuer']})")
            print(
                "Who may enter is said by Home Assistant, as before: take the carrier out there if it is to be nobody."
            )
        case "approve":
            one = ask("POST", "/carriers/approve", {"issuer": given.which})
            print(f"approved    {_shown(one['name'])} ({one['issuer']})")
    return 0


def _link(one: dict[str, Any]) -> Iterator[Sequence[str]]:
    """Say how the link to a carrier is, in rows."""
    state = "connected" if one["connected"] else "NOT CONNECTED"
    doors = f"{one['doors']} doors" if one["doors"] else "no door, until Home Assistant lets it in"
    yield "carrier", _shown(one["name"]), f"{state}, {doors}; {one['issuer']} at {one['host']}"
    for wrong in one["wrong"]:
        yield "", "WRONG", _shown(wrong)


def _backup(given: argparse.Namespace) -> int:
    import signal

    from . import backup

    files, ask, path = _files(given), _asking(given), Path(given.file)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: the journal goes on, and no half of a file is left
        signal.signal(number, signal.default_int_handler)
    try:
        if given.file != "-":
            backup.create(path, lambda into: backup.write(files, into, ask))
        elif sys.stdout.isatty():
            raise Unusable("there are keys in it that no screen should show: name a file, or send it on with |")
        else:
            backup.write(files, sys.stdout.buffer, ask)
            sys.stdout.buffer.flush()
            return 0
    except FileExistsError as err:
        raise Unusable(f"{path} is there already: choose another name") from err
    except BrokenPipeError as err:
        raise Unusable("whoever took the backup has ended: there is none") from err
    except OSError as err:
        raise Unusable(f"{err.filename or path}: {err.strerror}: there is no backup") from err
    print(f"written     {path}: who has it can open the doors, so keep it as you keep their keys")
    print(f"not in it   {given.config}, and the files with keys and passwords that it names")
    return 0


def _pair_strike(given: argparse.Namespace) -> int:
    from .config import read_config

    with explained():
        config = read_config(given.config)
        if (door := next((door for door in config.doors if door.key == given.door), None)) is None:
            raise Unusable(f"there is no [door.{given.door}] in {given.config}")
        if not door.relay.is_radio:
            raise Unusable(f'[door.{door.key}] has a relay, not a strike: write relay = {{ strike = "ble" }} first')
        from vestibule_core.doorstrike.pairing import LabelError

        from .relay.ble import pair_strike

        print("Hold the button on the secure side of the strike for 3 seconds. Then type the code on its label.")
        try:
            stored = asyncio.run(pair_strike(config.state, door.key, _typed("code: "), config.name))
        except LabelError as err:
            raise Unusable(str(err)) from err
    print(f"paired      {stored.address} is the strike of [door.{door.key}] from the next start on")
    return 0


def _typed(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError as err:
        raise Unusable("no code was typed") from err


def _asking(given: argparse.Namespace) -> Any:
    from functools import partial

    from .control import call

    return partial(call, _files(given).control)


def _files(given: argparse.Namespace) -> Files:
    from .config import read_config
    from .state import Files

    with explained():
        return Files(read_config(given.config).state)


# ---- words ----


def _scopes(client: dict[str, Any]) -> str:
    return ", ".join(client["scopes"]) or "nothing"


def _rights(wish: dict[str, Any]) -> str:
    if "present" not in wish["scopes"]:
        return _scopes(wish)
    whose = "every carrier" if wish["issuers"] is None else ", ".join(map(_shown, wish["issuers"])) or "no carrier"
    return f"{_scopes(wish)} (tokens of {whose})"


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as columns; the last one is as wide as it is."""
    rows = [tuple(row) for row in rows]
    wide = [max((len(row[column]) for row in rows if len(row) > column + 1), default=0) for column in range(3)]
    return "\n".join("  ".join(cell.ljust(wide[n]) for n, cell in enumerate(row)).rstrip() for row in rows)
