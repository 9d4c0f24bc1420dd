"""What moves bolts and watches doors: relay boards by Modbus-TCP or in memory, and Bluetooth strikes."""
