"""The server's side of `solarwind.v1`, whatever carries its bytes and whoever has the engine."""
