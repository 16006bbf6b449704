"""The kubelet's side of the CRI: pods and containers asked for over gRPC, as the kubelet and crictl do it."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc as services
from google.protobuf.json_format import MessageToDict

import support
from engines.image import IMAGE
from machines import patience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.containerd import Containerd
    from engines.scenario import Seen

SECONDS = patience(60)
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
RUNNING = "CONTAINER_RUNNING"
EXITED = "CONTAINER_EXITED"
# Names of protobuf messages exist only when the program runs; so do the types of what comes back.
Options = dict[str, object]


class Answer:
    """What a call gave: a message as JSON, or the gRPC code and the text of the refusal."""

    def __init__(self, code: str, text: str, document: support.Spec) -> None:
        self.code = code
        self.text = text
        self.document = document

    def ok(self) -> support.Spec:
        """The message, having asserted that there is one."""
        assert not self.code, f"{self.code}: {self.text}"
        return self.document

    def refused(self, *reasons: str) -> Answer:
        """Itself, having asserted that it is a refusal with these words."""
        assert self.code, self.document
        for reason in reasons:
            assert reason in self.text, self.text
        return self


class Pod:
    """A pod sandbox and what was made in it."""

    def __init__(
        self, kubelet: Kubelet, name: str, *, host_network: bool, privileged: bool, shared_processes: bool
    ) -> None:
        mode = cri.NamespaceMode.Value
        self.kubelet = kubelet
        self.namespaces = cri.NamespaceOption(
            network=mode("NODE" if host_network else "POD"),
            pid=mode("POD" if shared_processes else "CONTAINER"),
            ipc=mode("POD"),
        )
        self.config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default"),
            hostname="" if host_network else "pod",
            log_directory=kubelet.logs,
            dns_config=cri.DNSConfig(servers=["10.0.0.1"]),
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=kubelet.ctd.area.parent,
                security_context=cri.LinuxSandboxSecurityContext(
                    namespace_options=self.namespaces, privileged=privileged
                ),
                sysctls={} if host_network else {"net.ipv4.ip_unprivileged_port_start": "0"},
            ),
        )
        request = cri.RunPodSandboxRequest(config=self.config, runtime_handler=kubelet.ctd.area.runtime_name)
        self.id = str(kubelet.call("RunPodSandbox", request).ok()["podSandboxId"])

    def status(self) -> support.Spec:
        """The `status` member of PodSandboxStatus."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=self.id)
        status = self.kubelet.call("PodSandboxStatus", request).ok()["status"]
        assert isinstance(status, dict)
        return status

    def create(
        self,
        *command: str,
        context: Mapping[str, object] | None = None,
        resources: Mapping[str, object] | None = None,
        **options: object,
    ) -> Container:
        """A container of the busybox image; `context` and `resources` are members of the CRI's messages."""
        name = f"c{next(self.kubelet.numbers)}"
        security: Options = {
            "namespace_options": self.namespaces,
            "no_new_privs": True,
            "seccomp": cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
            "masked_paths": MASKED,
            "readonly_paths": READONLY,
            **(context or {}),
        }
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=IMAGE),
            command=list(command),
            log_path=f"{name}.log",
            linux=cri.LinuxContainerConfig(
                resources=cri.LinuxContainerResources(**(resources or {})),
                security_context=cri.LinuxContainerSecurityContext(**security),
            ),
            **options,
        )
        request = cri.CreateContainerRequest(
            pod_sandbox_id=self.id, config=config, sandbox_config=self.config
        )
        identity = str(self.kubelet.call("CreateContainer", request).ok()["containerId"])
        return Container(self.kubelet, identity, os.path.join(self.kubelet.logs, f"{name}.log"))

    def run(self, *command: str, **options: object) -> Container:
        """create() and start."""
        made = self.create(*command, **options)  # type: ignore[arg-type]
        made.start().ok()
        return made

    def stats(self) -> support.Spec:
        """PodSandboxStats."""
        return self.kubelet.call("PodSandboxStats", cri.PodSandboxStatsRequest(pod_sandbox_id=self.id)).ok()

    def remove(self) -> None:
        """Stop and remove it with all that is in it; both may be said twice."""
        self.kubelet.pods.remove(self)
        for _ in range(2):
            self.kubelet.call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=self.id)).ok()
        for _ in range(2):
            self.kubelet.call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=self.id)).ok()


class Container:
    """One container of a pod; `log` is the file with its output as the kubelet reads it."""

    def __init__(self, kubelet: Kubelet, identity: str, log: str) -> None:
        self.kubelet = kubelet
        self.id = identity
        self.log = log

    def start(self) -> Answer:
        """StartContainer."""
        return self.kubelet.call("StartContainer", cri.StartContainerRequest(container_id=self.id))

    def status(self) -> support.Spec:
        """The `status` member of ContainerStatus."""
        request = cri.ContainerStatusRequest(container_id=self.id)
        status = self.kubelet.call("ContainerStatus", request).ok()["status"]
        assert isinstance(status, dict)
        return status

    def ended(self, timeout: float = 30) -> support.Json:
        """Wait for its end: exit status, reason and message as the kubelet is told."""
        support.wait_until(lambda: self.status()["state"] == EXITED, "the end of the container", timeout)
        status = self.status()
        return {name: status.get(name) for name in ("state", "exitCode", "reason", "message")}

    def exec(self, *command: str, timeout: int = 0) -> Answer:
        """ExecSync; the output is base64 in the answer, see output()."""
        request = cri.ExecSyncRequest(container_id=self.id, cmd=list(command), timeout=timeout)
        return self.kubelet.call("ExecSync", request)

    def output(self, *command: str) -> support.Result:
        """ExecSync as the result of a command."""
        request = cri.ExecSyncRequest(container_id=self.id, cmd=list(command))
        answer = self.kubelet.runtime.ExecSync(request, timeout=SECONDS)
        return support.Result(command, answer.exit_code, answer.stdout.decode(), answer.stderr.decode())

    def lines(self) -> list[str]:
        """The log: stream, full or partial, text; without the time."""
        with open(self.log, encoding="utf-8") as stream:
            return [line.rstrip("\n").partition(" ")[2] for line in stream]

    def update(self, **resources: object) -> Answer:
        """UpdateContainerResources."""
        linux = cri.LinuxContainerResources(**resources)
        request = cri.UpdateContainerResourcesRequest(container_id=self.id, linux=linux)
        return self.kubelet.call("UpdateContainerResources", request)

    def stats(self) -> support.Spec:
        """ContainerStats."""
        return self.kubelet.call("ContainerStats", cri.ContainerStatsRequest(container_id=self.id)).ok()

    def stop(self, grace: int) -> Answer:
        """StopContainer."""
        return self.kubelet.call(
            "StopContainer", cri.StopContainerRequest(container_id=self.id, timeout=grace)
        )

    def reopen_log(self) -> Answer:
        """ReopenContainerLog, after the file was moved away."""
        return self.kubelet.call("ReopenContainerLog", cri.ReopenContainerLogRequest(container_id=self.id))

    def remove(self) -> Answer:
        """RemoveContainer."""
        return self.kubelet.call("RemoveContainer", cri.RemoveContainerRequest(container_id=self.id))


class Kubelet:
    """A client of containerd's CRI plugin. Pods are removed by forget()."""

    def __init__(self, ctd: Containerd) -> None:
        self.ctd = ctd
        self.logs = ctd.area.path("logs")
        self.numbers = itertools.count(1)
        self.pods: list[Pod] = []
        self._channel = grpc.insecure_channel(f"unix://{ctd.socket}")
        self.runtime = services.RuntimeServiceStub(self._channel)
        grpc.channel_ready_future(self._channel).result(timeout=SECONDS)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait for a CRI plugin that has its network."""
        support.wait_until(self._ready, "the CRI plugin", timeout=60)

    def _ready(self) -> bool:
        answer = self.call("Status", cri.StatusRequest())
        if answer.code:
            return False
        conditions = answer.document["status"]
        assert isinstance(conditions, dict)
        return "false" not in str(conditions).lower()

    def call(self, name: str, request: object) -> Answer:
        """One call of the runtime service."""
        try:
            answer = getattr(self.runtime, name)(request, timeout=SECONDS)
        except grpc.RpcError as error:
            return Answer(error.code().name, error.details(), {})
        return Answer("", "", MessageToDict(answer))

    def pod(
        self, *, host_network: bool = False, privileged: bool = False, shared_processes: bool = False
    ) -> Pod:
        """RunPodSandbox with the runtime handler of the area's runtime."""
        made = Pod(
            self,
            f"p{next(self.numbers)}",
            host_network=host_network,
            privileged=privileged,
            shared_processes=shared_processes,
        )
        self.pods.append(made)
        return made

    def refusal(self, seen: Seen, name: str, answer: Answer, *reasons: str) -> None:
        """Note a refusal, as Seen.refusal does it for commands."""
        answer.refused(*reasons)
        seen.value(f"{name}.code", answer.code)
        seen.value(f"{name}.reasons", list(reasons))
        seen.value(f"{name}.message", answer.text)

    def forget(self) -> list[str]:
        """Remove all pods; cgroups that are left of them."""
        for pod in list(self.pods):
            pod.remove()
        self.numbers = itertools.count(1)
        return self.ctd.left()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
