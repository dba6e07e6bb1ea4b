"""Parts for other people's frameworks. Each is imported only where its framework is used."""
