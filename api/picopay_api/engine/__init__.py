"""The heart: what money may do, and how it becomes durable.

`commands.py` says what can be asked, `ledger.py` judges it without I/O, `committer.py` has it decided
together with whatever else arrived, and one file per capability offers it to `http`, `worker` and `cli`
through `engine.py`. Knows nothing of HTTP; every SQL statement it needs is in `store`.
"""
