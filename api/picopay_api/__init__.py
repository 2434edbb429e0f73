"""PicoPay's payment engine: an HTTP API over a double-entry ledger in PostgreSQL.

The parts import each other one way: `http -> engine -> store`, `worker -> engine, store`, `cli` all of
them. The package knows nothing of where it runs: not of Kubernetes, not of containers.
"""

__version__ = "0.1.0"
