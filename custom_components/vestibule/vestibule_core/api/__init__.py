"""The gateway's local API (docs/protocol.md C), as both of its ends see it.

- ``messages``   every body and every frame, read strictly; no other module spells a member's name
- ``policy``     the policy document: which carriers may enter where, when and how; what two of them have in common
- ``pairing``    both ends of pairing, without a network
- ``client``     the client's end, over HTTP; the only module of the core that knows aiohttp

``client`` acts, in an event loop; the others decide.
"""
