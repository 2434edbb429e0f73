"""Which clusters the end-to-end tests may be run on: they install, break and delete things there.

Used by `plugin.py`. Pure.
"""

_LOCAL = ("kind-", "k3d-")
_LOCAL_NAMES = (
    "minikube",
    "docker-desktop",
    "rancher-desktop",
    "picopay-cluster",
    "picopay-figures",
)


def objection(context: str, permitted: str | None, option: str = "--e2e-context") -> str | None:
    """Return why the tests are not run on the cluster of a kube context, or None when they may be.

    Clusters that a developer has on the own machine are known by the names that their makers give them. Any
    other one has to be named: `permitted`, by an option of the command line.
    """
    if not context:
        return "there is no current kube context: make cluster-up starts a cluster"
    if permitted is not None and permitted != context:
        return f"the current kube context is {context}, not {permitted}"
    known = context.startswith(_LOCAL) or context in _LOCAL_NAMES
    if permitted is None and not known:
        return (
            f"the kube context {context} is not one of a cluster for tests;"
            f" if it is, add {option}={context}"
        )
    return None
