"""The shapes of a `PicoPayEngine`: the source of the CRD, of the chart's schema and of the reference.

`engine.py` is what people write, with its parts in `database.py`, `pods.py` and `exposure.py`; `status.py` is
what the operator answers; `kinds.py` is what both are made of.
"""
