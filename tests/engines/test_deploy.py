"""What deploy/ holds for Kubernetes, as far as it can be checked without a cluster; test_cri.py runs the snippet."""

from __future__ import annotations

import os
import tomllib

import kubernetes_validate
import pytest
import yaml

import support
from engines import containerd, docker, podman

DEPLOY = os.path.join(support.PROJECT, "deploy")
HANDLER = "pyrunc"
PROGRAM = "/usr/local/sbin/pyrunc"


def documents(name: str) -> list[support.Spec]:
    """The objects of one manifest."""
    with open(os.path.join(DEPLOY, name), encoding="utf-8") as stream:
        return list(yaml.safe_load_all(stream))


def toml(name: str) -> support.Spec:
    """A snippet, parsed."""
    with open(os.path.join(DEPLOY, name), "rb") as stream:
        return tomllib.load(stream)


@pytest.mark.parametrize("name", ["runtimeclass.yaml", "installer.yaml", "pod.yaml"])
def test_manifest(name: str) -> None:
    """The manifest is valid for the newest Kubernetes that is known, without an unknown member."""
    found = documents(name)
    assert found
    for document in found:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_validation_can_fail() -> None:
    """The schemas find a member that does not exist."""
    wrong = {**documents("runtimeclass.yaml")[0], "handlers": "pyrunc"}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_names_agree() -> None:
    """RuntimeClass, pod, containerd and CRI-O speak of the same handler, program and label."""
    runtime_class, pod, installer = (
        documents(f"{name}.yaml")[0] for name in ("runtimeclass", "pod", "installer")
    )
    assert runtime_class["handler"] == HANDLER
    assert pod["spec"]["runtimeClassName"] == runtime_class["metadata"]["name"]  # type: ignore[index,call-overload]
    label = runtime_class["scheduling"]["nodeSelector"]  # type: ignore[index,call-overload]
    assert installer["spec"]["template"]["spec"]["nodeSelector"] == label  # type: ignore[index,call-overload]
    plugin = toml("containerd.toml")["plugins"]["io.containerd.grpc.v1.cri"]  # type: ignore[index,call-overload]
    handler = plugin["containerd"]["runtimes"][HANDLER]  # type: ignore[index,call-overload]
    assert handler["options"]["BinaryName"] == PROGRAM  # type: ignore[index,call-overload]
    crio = toml("crio.conf")["crio"]["runtime"]["runtimes"][HANDLER]  # type: ignore[index,call-overload]
    assert crio["runtime_path"] == PROGRAM  # type: ignore[index,call-overload]


@pytest.mark.parametrize("snippet", [containerd.SNIPPET, podman.SNIPPET, docker.SNIPPET])
def test_the_page_has_the_snippet(snippet: str) -> None:
    """What docs/engines.md shows to copy and paste is what the tests run."""
    with open(os.path.join(support.PROJECT, "docs/engines.md"), encoding="utf-8") as stream:
        text = stream.read()
    lines = [line for line in snippet.splitlines() if line and "#" not in line]
    assert "".join(f"{line}\n" for line in lines) in text


def test_installer_configures_containerd(scratch: str) -> None:
    """The installer adds the handler once, with the node's own cgroup driver, and leaves the rest as it was."""
    config = os.path.join(scratch, "etc/containerd/config.toml")
    os.makedirs(os.path.dirname(config))
    before = (
        "version = 2\n"
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n'
        '  runtime_type = "io.containerd.runc.v2"\n'
        '  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\n'
        "    SystemdCgroup = true\n"
    )
    with open(config, "w", encoding="utf-8") as stream:
        stream.write(before)
    script = os.path.join(DEPLOY, "install.sh")
    assert support.run("sh", script, "config", scratch).ok().out == "changed\n"
    assert support.run("sh", script, "config", scratch).ok().out == ""
    with open(config, encoding="utf-8") as stream:
        text = stream.read()
    assert text.startswith(before)
    plugin = tomllib.loads(text)["plugins"]["io.containerd.grpc.v1.cri"]
    options = plugin["containerd"]["runtimes"][HANDLER]["options"]
    assert options == {"BinaryName": PROGRAM, "SystemdCgroup": True}


def test_installer_refuses_what_it_does_not_know(scratch: str) -> None:
    """A containerd configuration of another version is left alone."""
    os.makedirs(os.path.join(scratch, "etc/containerd"))
    config = os.path.join(scratch, "etc/containerd/config.toml")
    with open(config, "w", encoding="utf-8") as stream:
        stream.write("version = 3\n")
    script = os.path.join(DEPLOY, "install.sh")
    support.run("sh", script, "config", scratch).fails("is not of version 2")
    with open(config, encoding="utf-8") as stream:
        assert stream.read() == "version = 3\n"


def test_installer_configures_crio(scratch: str) -> None:
    """The installer writes CRI-O's file once."""
    os.makedirs(os.path.join(scratch, "etc/crio"))
    script = os.path.join(DEPLOY, "install.sh")
    assert support.run("sh", script, "config", scratch).ok().out == "changed\n"
    assert support.run("sh", script, "config", scratch).ok().out == ""
    with open(os.path.join(scratch, "etc/crio/crio.conf.d/10-pyrunc.conf"), "rb") as stream:
        assert HANDLER in tomllib.load(stream)["crio"]["runtime"]["runtimes"]
