"""Many machines: the same core over NATS JetStream. See docs/NATS.md for what lies where."""
