"""The commands: what they say, how they end, and that none of them moves anything."""

from __future__ import annotations

import signal
import socket

import pytest

from scripts.demo_home.home import free_port
from tests.gateway.process import Command, command, gateway_process
from tests.simulated import Carrier
from vestibule_core.api.client import pair
from vestibule_core.api.messages import Operation
from vestibule_core.api.policy import Policy
from vestibule_core.errors import GatewayImpostor, NotPaired, PairingFailed
from vestibule_core.model import Actor, Code

ANN = Actor("1", "Ann", is_admin=True)


# ---- check ----


async def test_check_says_what_is_good_and_moves_nothing(config, tmp_path):
    status, said = await command("check", "--config", config)
    assert status == 0
    assert said.splitlines() == [
        f"config   ok    {config}: Parcel room, 2 doors",
        f"state    new   {tmp_path / 'state'} is filled at the first start",
        "board    ok    b: in memory only: 8 outputs, 8 inputs",
        "door     ok    gate: Gate, its id is made at the first start",
        "door     ok    yard: Yard, its id is made at the first start",
    ]
    assert (tmp_path / "relay.log").read_text() == ""
    assert not (tmp_path / "state").exists()


async def test_check_takes_nothing_from_a_gateway_that_runs(config):
    async with gateway_process(config) as gateway:
        status, said = await gateway.command("check")
        assert status == 0
        assert "state    ok " in said
        assert "door:" in said
        assert (await gateway.command("status"))[0] == 0
        assert gateway.movements == []


async def test_check_names_a_board_that_does_not_answer_and_goes_on(config):
    port = free_port()
    board = f'[board.far]\nkind = "modbus"\nhost = "127.0.0.1"\nport = {port}\n'
    config.write_text(config.read_text() + board)
    status, said = await command("check", "--config", config)
    assert status == 2
    assert "board    WRONG far: " in said
    assert "board    ok    b: " in said


@pytest.mark.parametrize("name", ["check", "run", "status"])
async def test_a_mistake_in_the_configuration_is_named_with_its_line(config, name):
    config.write_text(config.read_text().replace("access_time = 0.5", 'access_time = "0.5"', 1))
    line = config.read_text().splitlines().index('access_time = "0.5"') + 1
    status, said = await command(name, "--config", config)
    assert status == 2
    assert said == (
        f"vestibule-gateway: {config}, line {line}: door.gate.access_time: this has to be 0.5 to 30 seconds\n"
    )


async def test_a_configuration_that_is_not_there_is_named(tmp_path):
    status, said = await command("check", "--config", tmp_path / "none.toml")
    assert (status, said) == (2, f"vestibule-gateway: {tmp_path / 'none.toml'}: No such file or directory\n")


async def test_check_notices_a_state_folder_that_lost_its_key(config, tmp_path):
    async with gateway_process(config):
        pass
    (tmp_path / "state" / "identity.pem").unlink()
    for name in ("check", "keys"):
        status, said = await command(name, "--config", config)
        assert status == 2
        assert "identity.pem is not there, but it signed the journal: restore it from a backup" in said


# ---- pair ----


async def test_pair_that_is_interrupted_closes_the_window(config, session):
    async with gateway_process(config) as gateway:
        window = await Command.start("pair", "--config", config)
        code = (await window.until("code")).split()[-1]
        assert [len(group) for group in code.split("-")] == [5, 5, 5, 5]
        await window.until("In Home Assistant")
        window.process.send_signal(signal.SIGINT)
        assert await window.ends() == 130
        assert "closed      nobody was paired" in window.said
        with pytest.raises(PairingFailed) as failed:
            await pair(session, "127.0.0.1", gateway.port, code, "Home Assistant")
        assert failed.value.reason is NotPaired.NO_WINDOW


async def test_a_second_code_ends_the_first(config, session):
    async with gateway_process(config) as gateway:
        first = await Command.start("pair", "--config", config)
        old = (await first.until("code")).split()[-1]
        second = await Command.start("pair", "--config", config)
        new = (await second.until("code")).split()[-1]
        assert await first.ends() == 2
        assert "another code was asked for since" in first.said
        with pytest.raises(PairingFailed) as failed:
            await pair(session, "127.0.0.1", gateway.port, old, "Home Assistant")
        assert failed.value.reason is NotPaired.WRONG_CODE
        with pytest.raises(PairingFailed) as failed:
            await pair(session, "127.0.0.1", gateway.port, new, "Home Assistant")
        assert failed.value.reason is NotPaired.BUSY  # one attempt a second
        second.process.send_signal(signal.SIGINT)
        await second.ends()


# ---- status ----


async def test_status_of_a_gateway_that_is_not_paired(config):
    async with gateway_process(config) as gateway:
        status, said = await gateway.command("status")
        lines = [line.split(maxsplit=1)[0] for line in said.splitlines()]
        assert (status, lines) == (
            0,
            ["gateway", "address", "door", "door", "client", "policy", "widening", "journal"],
        )
        assert "unpaired, so it opens nothing" in said
        assert "normal, locked, reachable, [door.gate] door:" in said


async def test_status_shows_who_may_what_and_what_waits(config, session):
    async with gateway_process(config) as gateway:
        client = gateway.client(session, await gateway.pair(session))
        carrier = Carrier(doors=[each.door for each in (await client.doors()).doors])
        await client.put_policy(0, Policy("UTC", (carrier.admitted,)))
        assert await client.lockdown(True, ANN) is Code.GRANTED
        assert await client.operate(carrier.doors[0].id, Operation.DELIVERIES_OFF, ANN) is Code.GRANTED
        status, said = await gateway.command("status")
        assert status == 0
        rows = [" ".join(line.split()) for line in said.splitlines()]
        assert "lockdown ON nobody is let in" in rows
        assert any(row.startswith("door Gate locked_down, locked, reachable, no deliveries, ") for row in rows)
        assert any(row.startswith("client Home Assistant may admin, operate, present, read; ") for row in rows)
        assert "policy version 1 no carrier" in rows
        assert "waiting 24 h 0 min Parcels: a new carrier" in rows
        assert "widening not trusted waits for the button, `approve`, or 24 h" in rows
        assert (await gateway.command("approve"))[1] == "waits     Parcels: a new carrier\napproved: it holds now\n"
        assert (await gateway.command("approve"))[1] == "nothing waited\n"
        rows = [" ".join(line.split()) for line in (await gateway.command("status"))[1].splitlines()]
        assert "policy version 1 Parcels" in rows
        assert not [row for row in rows if row.startswith("waiting")]


async def test_status_says_that_widening_is_trusted(config, session):
    async with gateway_process(config) as gateway:
        await gateway.pair(session, "--trust")
        assert "widening  trusted " in (await gateway.command("status"))[1]


# ---- without a gateway ----


@pytest.mark.parametrize("arguments", [["pair"], ["status"], ["approve"], ["keys", "next"]], ids=" ".join)
async def test_without_a_gateway_that_runs_it_says_so(config, tmp_path, arguments):
    name, *more = arguments
    status, said = await command(name, "--config", config, *more)
    assert status == 2
    assert said == f"vestibule-gateway: no gateway runs with the state folder {tmp_path / 'state'}: start it first\n"


async def test_a_socket_that_a_killed_gateway_left_behind_is_no_gateway(config, tmp_path):
    async with gateway_process(config) as gateway:
        await gateway.kill()
    assert (tmp_path / "state" / "control.sock").exists()
    assert "no gateway runs" in (await command("status", "--config", config))[1]
    async with gateway_process(config) as again:
        assert (await again.command("status"))[0] == 0


async def test_whoever_does_not_speak_http_is_no_gateway(config, tmp_path):
    (tmp_path / "state").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "state" / "control.sock"))
        listening.listen()
        asked = await Command.start("status", "--config", config)
        listening.accept()[0].close()
        assert await asked.ends() == 2
    assert "does not answer" in asked.said


async def test_keys_before_the_first_start(config):
    status, said = await command("keys", "--config", config)
    assert status == 2
    assert "keys are made at the first start" in said


async def test_there_is_nothing_to_switch_to_before_it_was_announced(config):
    async with gateway_process(config) as gateway:
        status, said = await gateway.command("keys", "switch")
        assert status == 2
        assert "no next certificate is announced" in said


async def test_keys_shows_by_what_the_gateway_is_known_and_no_secret(config, session, tmp_path):
    async with gateway_process(config) as gateway:
        paired = await gateway.pair(session)
        status, said = await gateway.command("keys")
    assert status == 0
    assert said.splitlines() == [
        f"id           {paired.gateway_id}",
        f"signs as     {paired.gateway_key}",
        f"certificate  SHA-256 {paired.fingerprint.hex()}",
    ]


async def test_a_long_state_path_is_refused_before_anything_is_made(config, tmp_path):
    long = "x" * 90
    config.write_text(config.read_text().replace('state = "state"', f'state = "{long}"'))
    status, said = await command("run", "--config", config)
    assert status == 2
    assert "is too long a path" in said
    assert not (tmp_path / long).exists()


@pytest.mark.parametrize("lost", ["tls.pem", "id", "identity.pem"])
async def test_a_gateway_that_lost_what_it_is_known_by_does_not_become_another_one(config, tmp_path, lost):
    async with gateway_process(config):
        pass
    (tmp_path / "state" / lost).unlink()
    status, said = await command("run", "--config", config)
    assert status == 2
    assert f"{tmp_path / 'state' / lost} is not there" in said
    assert "restore it from a backup" in said
    assert not (tmp_path / "state" / lost).exists()


async def test_a_certificate_is_replaced_only_while_no_gateway_runs(config, session):
    async with gateway_process(config) as gateway:
        paired = await gateway.pair(session)
        status, said = await gateway.command("keys", "replace")
        assert status == 2
        assert "in use by another gateway" in said
    status, said = await command("keys", "--config", config, "replace")
    assert status == 0
    assert "until it is paired again" in said
    async with gateway_process(config) as again:
        with pytest.raises(GatewayImpostor):
            await again.client(session, paired).doors()


# ---- pair-strike ----

STRIKE = '[door.bins]\nname = "Bins"\naccess_time = 1\nrelay = { strike = "ble" }\n'


@pytest.mark.parametrize(
    "door, said",
    [("cellar", "there is no [door.cellar] in "), ("gate", "[door.gate] has a relay, not a strike")],
    ids=["no door", "a relay"],
)
async def test_only_a_door_with_a_strike_can_be_paired_with_one(config, door, said):
    status, answer = await command("pair-strike", "--config", config, door)
    assert status == 2
    assert said in answer


async def test_a_code_that_is_no_labels_code_does_not_trouble_the_radio(config):
    config.write_text(config.read_text() + STRIKE)
    asked = await Command.start("pair-strike", "--config", config, "bins")
    asked.type("12345\n")
    assert await asked.ends() == 2
    assert "Hold the button" in asked.said
    assert "12345" not in asked.said
    assert "Bluetooth" not in asked.said


async def test_a_strike_that_is_not_paired_is_named_by_check_and_status(config):
    config.write_text(config.read_text() + STRIKE)
    status, said = await command("check", "--config", config)
    assert status == 2
    assert "strike   WRONG bins: not paired yet: pair-strike bins" in said
    async with gateway_process(config) as gateway:
        assert (
            "NOT REACHABLE: it is not paired yet: vestibule-gateway pair-strike bins"
            in (await gateway.command("status"))[1]
        )
