"""The server's side of `solarwind.v1`, on any transport and for any process that has an engine."""
