"""DoorStrike/1: the BLE strike protocol (docs of the protocol: part B), both ends, without a radio or a relay.

A message's way: ``wire`` and ``frames`` (bytes) - ``handshake`` (Noise) - ``fragments`` (packets).

- ``wire``, ``frames``   every message, strictly; ``Violation`` for whatever is not one
- ``fragments``          messages cut to packets and put together again
- ``handshake``          Noise NNpsk0 (``nnpsk0``), both roles, bound to a HELLO and a slot
- ``pairing``            the label's code and QR text, and the keys that come of it
- ``client``             the client's end of one connection
- ``outcome``            what became of a release, also of one without an answer
- ``polling``            when an advertisement is worth a connection
- ``peripheral``         the strike's end: all connections, and the order of effects (``effects``)
- ``device``             the strike without its radio: ``keyring`` and ``slots`` (who may), ``spending`` (the relay),
  ``senses`` (inputs), ``log`` (spends and events), ``memory`` (all of that as bytes)
- ``link``                one connection as the strike sees it
- ``driver``              the client's end as the core's ``Strike``: ``connection`` (over a GATT client), ``known`` and
  ``news`` (what it said, and when), ``kept`` (what is stored of it), ``pairing_session``

``driver``, ``connection`` and ``pairing_session`` act, in an event loop; the others decide.
"""
