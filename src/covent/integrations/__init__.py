"""Foreign engines call our core and write our run folder. Each part imports its engine only when it is used."""
