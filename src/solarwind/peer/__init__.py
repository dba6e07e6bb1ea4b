"""Both ends of a connection of `solarwind.v1`: the client's, an engine, and the server's, for any process with one."""
