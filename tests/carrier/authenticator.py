"""The device with passkeys that the demo's driver has, too."""

from scripts.demo_home.passkey import BE, BS, Authenticator

__all__ = ["BE", "BS", "Authenticator"]
