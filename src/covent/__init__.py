"""covent: the entropy mechanism of reinforcement learning for reasoning language models (arXiv 2505.22617).

Importing this package imports neither torch nor any other heavy library; import the submodule you need:
`covent.law`, `covent.store`, `covent.report`, `covent.tasks` work on the base install; `covent.core`,
`covent.controls`, `covent.rollout` and `covent.train` need the `train` extra.
"""

__version__ = "0.1.0"
