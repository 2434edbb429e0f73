"""The edge: HTTP on one side, one call of the engine on the other.

`operations.py` runs every request through the same checks, in the order of docs/reference/errors.md; one
file per resource declares its operations: decode, call one engine function, encode. The routes, the
OpenAPI document, the docs page and the table of scopes are all made from those declarations.
"""
