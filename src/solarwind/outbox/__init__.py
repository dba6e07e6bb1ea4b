"""Effects once, in the user's own database: `once`, the outbox, and the relay that fires what was committed."""
