"""Volumes for claims: folders of the node, made when a pod is to use them and removed with their claims.

Used by `node.py`, which looks after them while the cluster is up. They are `local` volumes rather than
`hostPath`, so that a kubelet gives them to the group of a pod (`fsGroup`).
"""

import shutil
from pathlib import Path
from typing import Any

import httpx

from support.cluster.ground import NODE

_CLASS = "local"
_PROVISIONER = "picopay.io/local"
_CLAIMS = "/api/v1/persistentvolumeclaims"
_VOLUMES = "/api/v1/persistentvolumes"
_NODE_CHOSEN = "volume.kubernetes.io/selected-node"

Manifest = dict[str, Any]


def storage_class() -> Manifest:
    """Return the class of such volumes, which is the cluster's default."""
    return {
        "metadata": {
            "name": _CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": _PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


class Volumes:
    """The volumes of a cluster, below a folder."""

    def __init__(self, client: httpx.Client, folder: Path) -> None:
        self._client = client
        self._folder = folder

    def look(self) -> None:
        """Make volumes for the claims that wait for one, and remove those that are not needed any more."""
        there = {volume["metadata"]["name"]: volume for volume in self._listed(_VOLUMES)}
        for claim in self._listed(_CLAIMS):
            if _waits(claim) and _name(claim) not in there:
                self._make(claim)
        for name, volume in there.items():
            if _is_ours(volume) and volume["status"].get("phase") == "Released":
                self._remove(name, volume)

    def _make(self, claim: Manifest) -> None:
        name = _name(claim)
        place = self._folder / name
        place.mkdir(parents=True, exist_ok=True)
        self._client.post(_VOLUMES, json=_volume(claim, place)).raise_for_status()

    def _remove(self, name: str, volume: Manifest) -> None:
        if volume["spec"]["persistentVolumeReclaimPolicy"] != "Delete":
            return
        shutil.rmtree(self._folder / name, ignore_errors=True)
        answer = self._client.delete(f"{_VOLUMES}/{name}")
        if answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()

    def _listed(self, path: str) -> list[Manifest]:
        items: list[Manifest] = self._client.get(path).raise_for_status().json()["items"]
        return items


def _waits(claim: Manifest) -> bool:
    chosen = claim["metadata"].get("annotations", {}).get(_NODE_CHOSEN) == NODE
    return bool(chosen and _is_ours(claim) and claim["status"].get("phase") == "Pending")


def _is_ours(claim_or_volume: Manifest) -> bool:
    return str(claim_or_volume["spec"].get("storageClassName")) == _CLASS


def _name(claim: Manifest) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def _volume(claim: Manifest, place: Path) -> Manifest:
    """Return a volume that is for one claim, and can be used on the node only."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "metadata": {
            "name": _name(claim),
            # The controllers leave it to us what becomes of it.
            "annotations": {"pv.kubernetes.io/provisioned-by": _PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": _CLASS,
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim["metadata"]["namespace"],
                "name": claim["metadata"]["name"],
                "uid": claim["metadata"]["uid"],
            },
            "local": {"path": str(place)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
