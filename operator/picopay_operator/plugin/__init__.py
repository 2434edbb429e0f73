"""`kubectl picopay`: an engine as a person would want to see it, and what a person has to decide about it.

A program of its own, from the operator's package. It asks the API server with the rights of whoever runs it,
and changes nothing but the engine: annotations and the version in its spec, and Jobs that have failed.
What it gathers for support goes into a file where it runs.
"""
