"""The embedded trainer: one process, CPU or one GPU. `config` says what can be set, `loop` reads like a page."""
