"""Documents that the command line writes: the version, features, spec."""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING

import pytest

from pyrunc import __version__
from pyrunc.cli import main as cli
from pyrunc.cli import output as cli_output
from pyrunc.reports import features
from pyrunc.reports import spec as spec_template
from pyrunc.spec import mount_options

if TYPE_CHECKING:
    import pathlib


def go_runc(text: str) -> dict[str, str]:
    """How containerd/go-runc reads `--version`."""
    first, *rest = text.strip().split("\n")
    found = {}
    if first.startswith("runc version "):
        found["runc"] = first[13:]
        for line in rest:
            if line.startswith("commit: "):
                found["commit"] = line[8:]
            elif line.startswith("spec: "):
                found["spec"] = line[6:]
    return found


def moby(text: str) -> tuple[str, str, str]:
    """How dockerd reads it: runtime, version, commit."""
    runtime = version = commit = ""
    for line in text.strip().split("\n"):
        if "version" in line:
            pieces = line.split("version")
            runtime, version = pieces[0].strip(), pieces[-1].strip()
        elif line.startswith("commit:"):
            commit = line[7:].strip()
    return runtime, version, commit


@pytest.mark.parametrize(
    "argv", [["--version"], ["-v"], ["version"], ["--root", "/r", "--version", "create"]]
)
def test_version(argv: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """go-runc, dockerd and runc's own test suite can all read it."""
    assert cli.main(argv) == 0
    out, err = capfd.readouterr()
    assert err == ""
    found = go_runc(out)
    assert re.fullmatch(r"\d+\.\d+\.\d+\+pyrunc\.[0-9A-Za-z.]+", found["runc"]), "a semantic version"
    assert found["runc"].endswith(__version__)
    assert moby(out) == ("runc", found["runc"], found["commit"])
    assert found["spec"] == "1.3.0"
    assert re.search(r"^libseccomp: \d+\.\d+\.\d+$", out, re.MULTILINE)


def test_features() -> None:
    """The document of features.md, from the real tables."""
    text = features.render()
    document = json.loads(text)
    assert text.startswith('{\n    "ociVersionMin": "1.0.0",\n    "ociVersionMax": "1.3.0",\n')
    assert text.endswith("}\n")
    assert document["hooks"] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ]
    assert {"rro", "ro", "rbind", "rslave", "tmpcopyup"} <= set(document["mountOptions"])
    linux = document["linux"]
    assert linux["namespaces"] == ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]
    assert all(re.fullmatch("CAP_[A-Z_]+", name) for name in linux["capabilities"])
    assert len(linux["capabilities"]) == 41
    assert linux["cgroup"]["v1"]
    assert linux["cgroup"]["v2"]
    assert linux["cgroup"]["rdma"]
    assert linux["netDevices"] == {"enabled": True}
    assert {"MPOL_BIND", "MPOL_DEFAULT"} <= set(linux["memoryPolicy"]["modes"])
    seccomp = linux["seccomp"]
    assert seccomp["enabled"]
    assert {"SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW"} <= set(seccomp["actions"])
    assert seccomp["operators"] == [
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ]
    assert {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"} <= set(seccomp["archs"])
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert document["annotations"]["org.opencontainers.runc.checkpoint.enabled"] == "true"
    unsafe = {"org.systemd.property.", "run.oci.keep_original_groups", "run.oci.mount_context_type"}
    assert set(document["potentiallyUnsafeConfigAnnotations"]) == {*unsafe, "org.criu.config"}
    assert document["linux"]["cgroup"] == dict.fromkeys(("v1", "v2", "systemd", "systemdUser", "rdma"), True)


def test_features_of_linux() -> None:
    """What the rules let through is offered; the mount options are those of the table."""
    document = json.loads(features.render())
    for name in ("netDevices", "intelRdt"):
        assert document["linux"][name]["enabled"] is True
    assert document["linux"]["mountExtensions"] == {"idmap": {"enabled": True}}
    assert document["mountOptions"] == list(mount_options.OPTIONS)


def spec(bundle: pathlib.Path, *argv: str) -> dict[str, object]:
    assert cli.main(["spec", "-b", str(bundle), *argv]) == 0
    text = (bundle / "config.json").read_text()
    document = json.loads(text)
    assert text == json.dumps(document, indent="\t")
    assert isinstance(document, dict)
    return document


def test_spec(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """runc's document in runc's order, silently."""
    document = spec(tmp_path)
    assert list(document) == ["ociVersion", "process", "root", "hostname", "mounts", "linux"]
    assert document["root"] == {"path": "rootfs", "readonly": True}
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) & 0o111 == 0
    assert capfd.readouterr() == ("", "")


def test_spec_by_another_name(tmp_path: pathlib.Path) -> None:
    """--file names the file in the bundle."""
    assert cli.main(["spec", "--bundle", str(tmp_path), "--file", "other.json"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]
    assert json.loads((tmp_path / "other.json").read_text())["root"] == {"path": "rootfs", "readonly": True}


def test_spec_does_not_overwrite(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An existing file stays, whatever is in it; a dangling link is one, too."""
    path = tmp_path / "config.json"
    path.write_text("mine")
    assert cli.main(["spec", "--bundle", str(tmp_path)]) == 1
    assert capfd.readouterr().err == f"pyrunc: spec: file {path} exists, remove it first\n"
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to("elsewhere")
    assert cli.main(["spec", "--bundle", str(tmp_path)]) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_spec_in_a_directory_that_is_not_there(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The path and the reason."""
    assert cli.main(["spec", "--bundle", str(tmp_path / "x")]) == 1
    assert capfd.readouterr().err == (
        f"pyrunc: spec: open '{tmp_path}/x/config.json': no such file or directory\n"
    )


def types(document: dict[str, object]) -> list[str]:
    linux = document["linux"]
    assert isinstance(linux, dict)
    return [item["type"] for item in linux["namespaces"]]


def test_spec_namespaces() -> None:
    """A cgroup namespace on cgroup v2 only; rootless has a user namespace and no network of its own."""
    assert types(spec_template.document(rootless=False, unified=False)) == [
        "pid",
        "network",
        "ipc",
        "uts",
        "mount",
    ]
    assert types(spec_template.document(rootless=False, unified=True))[-1] == "cgroup"
    assert types(spec_template.document(rootless=True, unified=True)) == [
        "pid",
        "ipc",
        "uts",
        "mount",
        "cgroup",
        "user",
    ]


def test_spec_rootless() -> None:
    """One id is mapped, no option needs another, no resources are set."""
    document = spec_template.document(rootless=True, unified=False, uid=1000, gid=1001)
    linux = document["linux"]
    assert isinstance(linux, dict)
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert "resources" not in linux
    assert "gid=5" not in json.dumps(document)
    assert '"source": "/sys", "options": ["rbind"' in json.dumps(document)


def test_ps_filter() -> None:
    """Only whole numbers of the PID column count."""
    output = "  PID TTY CMD\n    1 ?   a\n   12 ?   1\n  112 ?   b\n"
    assert cli_output.filter_ps(output, [1, 112]) == "  PID TTY CMD\n    1 ?   a\n  112 ?   b\n"
    assert cli_output.filter_ps(output, []) == "  PID TTY CMD\n"
