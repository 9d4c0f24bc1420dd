"""DoorStrike/1, both ends against each other, over a link in memory."""
