"""The Secrets of an engine: which it refers to, which the operator makes, and whether all are there. Pure.

ConfigMaps that it refers to are treated alike. The values are never here: only the digest of each. A digest
in the pods' template replaces them when a value they use changes; what else is in the same Secret, and its
labels, do not.
"""

from collections.abc import Iterator

from picopay_operator import contract, drift, names
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.manifests.access import access
from picopay_operator.manifests.context import Access, SecretKey
from picopay_operator.plan import jobs
from picopay_operator.plan.jobs import JobState
from picopay_operator.plan.outcome import Generated, Observed, Step
from picopay_operator.spec.engine import DeletionPolicy, Engine
from picopay_operator.spec.pods import ConfigMapReference


def referred(engine: Engine) -> list[SecretKey]:
    """Return the values that an engine refers to and that somebody else keeps."""
    return list(dict.fromkeys(_referred(engine)))


def to_read(engine: Engine) -> set[str]:
    """Return the names of all Secrets that the plan looks at."""
    way = access(engine)
    keys = [*referred(engine), *(key for key in (way.url, way.migration_url, way.ca) if key)]
    return {key.secret for key in keys} | {admin_key_name(engine)}


def config_maps_to_read(engine: Engine) -> set[str]:
    """Return the names of all ConfigMaps that the plan looks at."""
    return {one.name for one in _config_maps(engine)}


def admin_key_name(engine: Engine) -> str:
    """Return the name of the Secret in which the administrator's key is delivered."""
    return engine.spec.auth.admin_key_secret_name or names.admin_key(engine.metadata.name)


def step(observed: Observed) -> Step:
    """Look after the Secrets that are referred to, and have the administrator's key made up."""
    engine = observed.engine
    keys = referred(engine)
    key_name = admin_key_name(engine)
    there = observed.secrets.get(key_name)
    if there is not None and not there.ours:
        return Step(findings=[_foreign(key_name)])
    rotation = engine.metadata.annotations.get(names.ROTATE_KEY)
    job = key_job(observed)
    live = observed.child("Job", job) if job else None
    if live is None or jobs.state(live) is not JobState.COMPLETE:
        # The key of now is not valid yet. Another one in its place would leave the one before it unretired.
        rotation = None
    generated = Generated("admin-key", key_name, is_owned(engine), rotation)
    return Step(
        findings=[_finding(observed, keys)],
        generated=[generated],
    )


def key_job(observed: Observed) -> str | None:
    """Return the name of the Job that makes the administrator's key of now valid."""
    name = admin_key_name(observed.engine)
    key = value_digest(observed, SecretKey(name, contract.ADMIN_KEY))
    if key is None:
        return None
    previous = value_digest(observed, SecretKey(name, contract.PREVIOUS_ADMIN_KEY))
    address = value_digest(observed, access(observed.engine).url)
    return names.admin_key_job(observed.name, drift.digest([key, previous, address], 8))


def is_owned(engine: Engine) -> bool:
    """Tell whether data goes with the engine when it is deleted."""
    return engine.spec.deletion_policy is DeletionPolicy.DELETE


def are_there(observed: Observed) -> bool:
    """Tell whether all values that the engine refers to are there."""
    return _finding(observed, referred(observed.engine)).status is TRUE


def data_hash(observed: Observed, way: Access) -> str:
    """Return the digest of the values that the pods of the API and the worker use."""
    used = [way.url, *([way.ca] if way.ca else []), *_of_variables(observed.engine)]
    digests = [value_digest(observed, key) for key in used]
    digests += [_config_digest(observed, one) for one in _config_maps(observed.engine)]
    return drift.digest(digests)


def value_digest(observed: Observed, key: SecretKey | None) -> str | None:
    """Return the digest of a value, if it is there."""
    seen = observed.secrets.get(key.secret) if key else None
    return seen.digests.get(key.key) if seen and key else None


def _referred(engine: Engine) -> Iterator[SecretKey]:
    database = engine.spec.database
    for one in (database.secret_ref, database.migration_secret_ref):
        if one is not None:
            yield SecretKey(one.name, one.key)
    if database.tls and database.tls.ca_secret_ref:
        yield SecretKey(database.tls.ca_secret_ref.name, database.tls.ca_secret_ref.key)
    yield from _of_variables(engine)


def _of_variables(engine: Engine) -> Iterator[SecretKey]:
    for variable in engine.spec.env:
        if variable.value_from and (reference := variable.value_from.secret_key_ref):
            yield SecretKey(reference.name, reference.key)


def _config_maps(engine: Engine) -> Iterator[ConfigMapReference]:
    for variable in engine.spec.env:
        if variable.value_from and (reference := variable.value_from.config_map_key_ref):
            yield reference


def _config_digest(observed: Observed, reference: ConfigMapReference) -> str | None:
    return (observed.config_maps.get(reference.name) or {}).get(reference.key)


def _finding(observed: Observed, keys: list[SecretKey]) -> Finding:
    for key in keys:
        seen = observed.secrets.get(key.secret)
        if seen is None:
            message = f"the Secret {key.secret} is not there: create it with the key {key.key}"
            return Finding(Type.SECRETS_READY, FALSE, Reason.SECRET_NOT_FOUND, message)
        if key.key not in seen.digests:
            message = f"the Secret {key.secret} has no key {key.key}"
            return Finding(Type.SECRETS_READY, FALSE, Reason.SECRET_KEY_MISSING, message)
    for one in _config_maps(observed.engine):
        if observed.config_maps.get(one.name) is None:
            message = f"the ConfigMap {one.name} is not there: create it with the key {one.key}"
            return Finding(Type.SECRETS_READY, FALSE, Reason.CONFIG_MAP_NOT_FOUND, message)
        if _config_digest(observed, one) is None:
            message = f"the ConfigMap {one.name} has no key {one.key}"
            return Finding(Type.SECRETS_READY, FALSE, Reason.CONFIG_MAP_KEY_MISSING, message)
    return Finding(Type.SECRETS_READY, TRUE, Reason.SECRETS_FOUND, "all Secrets are there")


def _foreign(name: str) -> Finding:
    message = (
        f"the Secret {name} is there and was not made by the operator: it is left alone;"
        " name another one in auth.adminKeySecretName"
    )
    return Finding(Type.SECRETS_READY, FALSE, Reason.ADOPTION_REFUSED, message, stalled=True)
