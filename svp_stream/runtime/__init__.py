"""Speed rooms: compiled back ends with an off switch; plain torch is the reference."""
