"""Pure builders of what the operator applies: one module per kind of thing, engine in, manifest out.

A manifest has the fields that the operator owns, and no other: those that somebody else sets (the replicas of
an autoscaler, what an injector adds) are left out, so that server-side apply leaves them alone.
"""
