"""What the programs of the cluster are told: options, files, and the objects that it begins with.

Used by `node.py`. Everything here only says; nothing is started.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from support.cluster import ground, volumes
from support.cluster.ground import NODE
from support.cluster.programs import Programs
from support.controlplane.servers import ControlPlane, Surroundings

PAUSE = "localhost/pause:1"
"""The image that holds the namespaces of a pod."""
IMPORT = ("ctr", "--namespace", "k8s.io", "images", "import")
"""The beginning of a command that gives the node an image."""

_DNS_ADDRESS = "10.96.0.10"
_DOMAIN = "cluster.local"
_KUBELET, _PROXY, _DNS = f"system:node:{NODE}", "system:kube-proxy", "system:coredns"
_API_SERVER = "kube-apiserver"  # what its certificate calls it, before those whom it asks


def surroundings(folder: Path) -> Surroundings:
    """Return what the control plane needs to know of the node. `folder` is the cluster's."""
    # The control plane's folder is that of its first trial: nobody else takes ports in this network.
    keys = folder / "control-plane" / "1"
    certificate, key = str(keys / "server.crt"), str(keys / "server.key")
    return Surroundings(
        name=ground.NAME,
        address=ground.NODE_ADDRESS,
        users={_KUBELET: "system:nodes", _PROXY: _PROXY, _DNS: "system:masters"},
        options={
            "kube-apiserver": {
                "advertise-address": ground.NODE_ADDRESS,
                "endpoint-reconciler-type": "lease",
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                "disable-admission-plugins": "",
                "allow-privileged": "true",
                "kubelet-preferred-address-types": "InternalIP",
                "kubelet-client-certificate": certificate,
                "kubelet-client-key": key,
                # It hands requests on to API servers in pods, which learn whom to believe from a ConfigMap.
                "proxy-client-cert-file": certificate,
                "proxy-client-key-file": key,
                "requestheader-client-ca-file": certificate,
                "requestheader-allowed-names": _API_SERVER,
                "requestheader-username-headers": "X-Remote-User",
                "requestheader-group-headers": "X-Remote-Group",
                "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            },
            "kube-controller-manager": {"controllers": "*"},
        },
    )


def files(folder: Path, programs: Programs, plane: ControlPlane) -> dict[str, str]:
    """Return the files that the programs read, by their names below the folder."""
    for name, user in (("kubelet", _KUBELET), ("kube-proxy", _PROXY), ("coredns", _DNS)):
        plane.kubeconfig(folder / f"{name}.kubeconfig", plane.token(user))
    (folder / "plugins").mkdir()
    return {
        "containerd.toml": _containerd(folder, programs),
        "plugins/10-pods.conflist": json.dumps(_network()),
        "kubelet.yaml": yaml.safe_dump(_kubelet(folder, plane)),
        "kube-proxy.yaml": yaml.safe_dump(_proxy(folder)),
        "resolv.conf": "",
        "Corefile": f"""
.:53 {{
    bind {ground.NODE_ADDRESS}
    errors
    ready
    kubernetes {_DOMAIN} in-addr.arpa {{
        kubeconfig {folder / "coredns.kubeconfig"}
        ttl 5
    }}
}}
""",
    }


def command_lines(folder: Path, programs: Programs) -> dict[str, list[str]]:
    """Return how the programs are started, by their names."""
    containerd = shutil.which("containerd")
    assert containerd is not None
    return {
        "containerd": [containerd, "--config", str(folder / "containerd.toml")],
        "coredns": [str(programs.node / "coredns"), "-conf", str(folder / "Corefile")],
        "kubelet": [
            str(programs.node / "kubelet"),
            f"--config={folder / 'kubelet.yaml'}",
            f"--kubeconfig={folder / 'kubelet.kubeconfig'}",
            f"--hostname-override={NODE}",
            f"--node-ip={ground.NODE_ADDRESS}",
        ],
        "kube-proxy": [
            str(programs.node / "kube-proxy"),
            f"--config={folder / 'kube-proxy.yaml'}",
            f"--hostname-override={NODE}",
        ],
    }


def objects() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what the cluster begins with, each with the path at which it is made."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    ports += [{"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    # CoreDNS is a process beside the kubelet: the Service has no pods to select.
    yield (
        "/api/v1/namespaces/kube-system/services",
        {"metadata": {"name": "kube-dns"}, "spec": {"clusterIP": _DNS_ADDRESS, "ports": ports}},
    )
    yield (
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
        {
            "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [ground.NODE_ADDRESS], "conditions": {"ready": True}}],
        },
    )
    role = "system:kubelet-api-admin"
    group = "rbac.authorization.k8s.io"
    yield (
        f"/apis/{group}/v1/clusterrolebindings",
        {
            "metadata": {"name": _API_SERVER},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": _API_SERVER}],
        },
    )
    yield "/apis/storage.k8s.io/v1/storageclasses", volumes.storage_class()


def _containerd(folder: Path, programs: Programs) -> str:
    """Return containerd's file, in the version that both its releases 1 and 2 understand.

    A machine in a container may not make a process more likely to be spared, and may lack huge pages.
    """
    runtimes = "plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc"
    return f"""
version = 2
[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = '{PAUSE}'
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = true
[plugins.'io.containerd.grpc.v1.cri'.cni]
  bin_dir = '{programs.plugins}'
  conf_dir = '{folder / "plugins"}'
[{runtimes}]
  runtime_type = 'io.containerd.runc.v2'
[{runtimes}.options]
  BinaryName = '{shutil.which("runc")}'
  SystemdCgroup = false
"""


def _network() -> dict[str, Any]:
    """Return how pods are connected: by routes, so that Services lead from a pod to another of the node."""
    pods = ground.POD_RANGE.replace(".0.0/16", ".0.0/24")
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "mtu": 1400, "ipam": addresses},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _kubelet(folder: Path, plane: ControlPlane) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plane.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [_DNS_ADDRESS],
        "clusterDomain": _DOMAIN,
        "resolvConf": str(folder / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{ground.CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "seccompDefault": True,
        # Images were loaded by hand, and cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
    }


def _proxy(folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(folder / "kube-proxy.kubeconfig")},
        "mode": "iptables",
        "clusterCIDR": ground.POD_RANGE,
        "oomScoreAdj": 0,
        # The table of connections is the whole machine's: its size is left alone.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
