"""How fast and how well people are fitted on a device."""
