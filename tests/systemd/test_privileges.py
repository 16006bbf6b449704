"""What takes CAP_SYS_RESOURCE, which many test machines lack: limits raised, the OOM killer's score lowered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import support
import systemd_host as others

if TYPE_CHECKING:
    from containers import BundleFactory, ContainerFactory

pytestmark = pytest.mark.root
CAP_SYS_RESOURCE = 24
# A caller that has little itself.
LITTLE = ("prlimit", "--nofile=100:200", "--nproc=300:300", "choom", "--adjust", "500", "--")


@pytest.fixture(autouse=True)
def _privileged() -> None:
    support.needs(support.has_capability(CAP_SYS_RESOURCE), "CAP_SYS_RESOURCE")


@pytest.mark.parametrize("name", ["probe", "userns"])
@pytest.mark.parametrize("runtime", others.RUNTIMES)
def test_more_than_the_caller_has(
    container: ContainerFactory, bundle: BundleFactory, runtime: str, name: str
) -> None:
    """Hard limits above the caller's, a score below its own, with and without a user namespace; exec has them too."""
    with open("/proc/sys/fs/nr_open", encoding="ascii") as stream:
        most = int(stream.read())
    made = bundle(name).args("/bin/probe", "rlimits", "--", "cat", "/proc/self/oom_score_adj", "--", "pause")
    made.mapping("process")["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 150, "hard": most},
        {"type": "RLIMIT_NPROC", "soft": 4000, "hard": 5000},
    ]
    made.mapping("process")["oomScoreAdj"] = -700
    one = container(made, command=[*LITTLE, *others.program(runtime, "cgroupfs")]).up()
    text = one.expect("ready")
    facts = support.Facts(text)
    assert (facts["RLIMIT_NOFILE"], facts["RLIMIT_NPROC"]) == (f"150 {most}", "4000 5000")
    assert "-700" in text.splitlines()
    later = one.exec("/bin/probe", "rlimits", "--", "cat", "/proc/self/oom_score_adj").ok()
    # crun 1.8 gives these to the first program alone.
    if runtime != "crun":
        assert later.facts()["RLIMIT_NPROC"] == "4000 5000"
        assert "-700" in later.out.splitlines()
