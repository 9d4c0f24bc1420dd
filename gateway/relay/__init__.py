"""What moves bolts and watches doors: boards by Modbus-TCP, ESPHome, Shelly or in memory, and Bluetooth strikes."""
