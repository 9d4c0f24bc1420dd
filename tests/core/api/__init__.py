"""The gateway's API: its messages, its policy, pairing, and its client against a real server on loopback."""
