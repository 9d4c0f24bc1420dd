"""A strike on a Linux box: its configuration, its disk, its relay, and all of it over the virtual radio.

- ``controller.Controller`` is who opens it: a plain bleak client that speaks the protocol.
- ``strikes.Gate`` is a strike in this process, with verbs.
- ``strikes.GateProcess`` is one in a process of its own, as a person would start it; ``mortal`` is one that dies when
  it is told to.
"""
