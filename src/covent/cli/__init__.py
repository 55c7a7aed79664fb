"""The command line: parse, call, print. What a command needs beyond that is imported inside it."""
