"""What is measured: each section runs the runtimes in alternation and writes rows into the figures.

In every round another runtime is the first, so that none always follows the same one.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import workload
from command import CommandError, Life
from surroundings import REFUSE, Watch, wait_quiet
from workload import Bundles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from command import Runtime
    from figures import Figures

# A quiet moment, after which the first write to a cgroup.procs waits for the kernel as on a real host.
QUIET = 0.3
AT_ONCE = 20
_FILLERS = 4


class Plan:
    """How much of everything."""

    def __init__(self, *, quick: bool, rounds: int) -> None:
        self.rounds = rounds or (8 if quick else 40)
        self.cold = max(self.rounds // 4, 1)
        # Five times twenty containers.
        self.batches = max(self.rounds // 8, 1)
        self.batch = 5 if quick else AT_ONCE
        self.many = 50 if quick else 500
        self.few = 5


class Scene:
    """Where a section runs: the view's name, the runtimes, the bundles, and what gets the figures.

    `choosy`: a round of whole lives counts only if the machine had little else to do meanwhile; others are taken again.
    """

    def __init__(
        self, view: str, runtimes: Sequence[Runtime], scratch: str, figures: Figures, *, choosy: bool
    ) -> None:
        self.view = view
        self.runtimes = runtimes
        self.figures = figures
        self.choosy = choosy
        self.scratch = scratch
        self._bundles: dict[str, Bundles] = {}

    def bundles(self, name: str) -> Bundles:
        """The bundles of a kind, made when first asked for."""
        if name not in self._bundles:
            self._bundles[name] = Bundles(name, self.scratch)
        return self._bundles[name]

    def container(self, name: str) -> str:
        """The name of a container that nobody else on this machine has, another bench included."""
        return f"{os.path.basename(self.scratch)}-{name}"

    def order(self, number: int) -> list[Runtime]:
        """Who comes when in this round."""
        first = number % len(self.runtimes)
        return [*self.runtimes[first:], *self.runtimes[:first]]

    def turns(self, rounds: int) -> Iterator[tuple[int, Runtime]]:
        """Round by round, each runtime once."""
        for number in range(rounds):
            for one in self.order(number):
                yield number, one


def warm_up(scene: Scene, bundle: str) -> None:
    """A round that does not count; afterwards every program is in memory and every filter compiled."""
    for _, one in scene.turns(2):
        one.whole_life(scene.container("warm"), scene.bundles(bundle))


def _lives(scene: Scene, bundle: str, regime: str, rounds: int, quiet: float) -> None:
    warm_up(scene, bundle)
    number, spare = 0, rounds if scene.choosy else 0
    while number < rounds:
        watch = Watch()
        lives = {
            one: one.whole_life(scene.container(f"{regime}-{number}"), scene.bundles(bundle), quiet)
            for one in scene.order(number)
        }
        if spare and watch.others() > REFUSE:
            spare -= 1
            scene.figures.retaken += 1
            wait_quiet(30)
            continue
        number += 1
        for one in scene.runtimes:
            for command, sample in lives[one].samples.items():
                row = scene.figures.row(scene.view, bundle, regime, command, one.name)
                row.add(ms=sample.ms, kb=sample.kb, cpu_ms=sample.cpu_ms, instructions=sample.instructions)
            waiting = scene.figures.row(scene.view, bundle, regime, "waiting init", one.name)
            waiting.add(kb=lives[one].waiting_kb)


def hot(scene: Scene, plan: Plan) -> None:
    """Whole lives, commands back to back."""
    for bundle in workload.NAMES:
        _lives(scene, bundle, "hot", plan.rounds, 0)


def cold(scene: Scene, plan: Plan) -> None:
    """Whole lives, a quiet moment before each command."""
    for bundle in workload.NAMES:
        _lives(scene, bundle, "cold", plan.cold if bundle == "minimal" else max(plan.cold // 2, 1), QUIET)


def series(scene: Scene, plan: Plan) -> None:
    """Short lives: a hundred one after the other, and as many twenty at a time. ms for each container."""
    warm_up(scene, "minimal")
    bundle = scene.bundles("minimal").exit
    for number, one in scene.turns(plan.batches):
        begin = time.perf_counter()
        for index in range(plan.batch):
            one.short_life(scene.container(f"one-{number}-{index}"), bundle)
        took = (time.perf_counter() - begin) * 1000 / plan.batch
        scene.figures.row(scene.view, "minimal", "one-by-one", "short life", one.name).add(ms=took)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, one in scene.turns(plan.batches):
            begin = time.perf_counter()
            names = [scene.container(f"at-once-{number}-{index}") for index in range(AT_ONCE)]
            list(pool.map(one.short_life, names, [bundle] * AT_ONCE))
            took = (time.perf_counter() - begin) * 1000 / AT_ONCE
            scene.figures.row(scene.view, "minimal", "at-once", "short life", one.name).add(ms=took)


def _snapshot(program: str) -> str:
    """Where root's pyrunc keeps the Python that has started: csrc/command/python.c, find_snapshot."""
    digest = 0xCBF29CE484222325
    for byte in os.fsencode(os.path.realpath(program)):
        digest = (digest ^ byte) * 0x100000001B3 % (1 << 64)
    return f"/run/pyrunc/@python-{digest:016x}"


def first(scene: Scene, plan: Plan) -> None:
    """create where nothing is prepared yet, as after a reboot: pyrunc has no snapshot and makes one."""
    bundles = scene.bundles("minimal")
    warm_up(scene, "minimal")
    for number, one in scene.turns(plan.batches):
        if one.name == "pyrunc" and os.path.exists(_snapshot(one.program)):
            os.unlink(_snapshot(one.program))
        life = one.whole_life(scene.container(f"first-{number}"), bundles)
        scene.figures.row(scene.view, "minimal", "first", "create", one.name).add(
            ms=life.samples["create"].ms
        )


class _Crowd:
    """Containers of one runtime that are alive while something else is measured."""

    def __init__(self, scene: Scene, one: Runtime, bundle: str) -> None:
        self.scene = scene
        self.one = one
        self.bundle = bundle
        self.alive: list[Life] = []

    def _bring_up(self, number: int) -> Life:
        life = Life(self.scene.container(f"crowd-{number}"))
        self.one.create(life, self.bundle)
        self.one.call(life.name, "start", life.name)
        return life

    def _take_down(self, life: Life) -> None:
        os.kill(life.pid, signal.SIGKILL)
        os.waitpid(life.pid, 0)
        self.one.delete(life)

    def resize(self, number: int) -> None:
        """Have so many of them."""
        gone = self.alive[number:]
        with ThreadPoolExecutor(_FILLERS) as pool:
            self.alive = [*self.alive[:number], *pool.map(self._bring_up, range(len(self.alive), number))]
            list(pool.map(self._take_down, gone))
        missing = [life.name for life in self.alive if not os.path.exists(f"/proc/{life.pid}/exe")]
        if missing:
            raise CommandError(f"{self.one.name}: not alive any more: {', '.join(missing)}")


def scaling(scene: Scene, plan: Plan) -> None:
    """Whole lives beside a few containers, many, and a few again."""
    bundles = scene.bundles("minimal")
    rounds = max(plan.rounds // 2, 2)
    for one in scene.runtimes:
        crowd = _Crowd(scene, one, bundles.pause)
        try:
            for number, size in enumerate((plan.few, plan.many, plan.few)):
                crowd.resize(size)
                one.whole_life(scene.container("warm"), bundles)
                for index in range(rounds):
                    life = one.whole_life(scene.container(f"beside-{number}-{index}"), bundles)
                    for command, sample in life.samples.items():
                        row = scene.figures.row(scene.view, "minimal", f"alive-{size}", command, one.name)
                        row.add(ms=sample.ms)
        finally:
            crowd.resize(0)


# --- The Python API ---------------------------------------------------------------------------------------------------


def _in_process(name: str, bundle: str, root: str, pid_file: str) -> float:
    """create, start, wait, delete by functions; ms."""
    from pyrunc import runtime
    from pyrunc.requests import Context, CreateOptions

    context = Context(root, root_explicit=True)
    begin = time.perf_counter()
    runtime.create(context, name, bundle, CreateOptions(pid_file=pid_file))
    runtime.start(context, name)
    with open(pid_file, encoding="ascii") as stream:
        _, status = os.waitpid(int(stream.read()), 0)
    runtime.delete(context, name)
    took = (time.perf_counter() - begin) * 1000
    if os.waitstatus_to_exitcode(status) != workload.RUN_STATUS or os.path.exists(f"{root}/{name}"):
        raise CommandError(f"the Python API: wait status {status}, or its state is left")
    return took


def _by_commands(name: str, one: Runtime, bundle: str, pid_file: str) -> float:
    """The same by commands, started as cheaply as Python can; ms."""

    def call(*words: str) -> None:
        argv = [one.program, "--root", one.root, *words]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        ]
        _, status = os.waitpid(os.posix_spawn(argv[0], argv, os.environ, file_actions=actions), 0)
        if status != 0:
            raise CommandError(f"{' '.join(argv)}: wait status {status}")

    begin = time.perf_counter()
    call("create", "--bundle", bundle, "--pid-file", pid_file, name)
    call("start", name)
    with open(pid_file, encoding="ascii") as stream:
        _, status = os.waitpid(int(stream.read()), 0)
    call("delete", name)
    took = (time.perf_counter() - begin) * 1000
    if os.waitstatus_to_exitcode(status) != workload.RUN_STATUS:
        raise CommandError(f"{one.name}: the program's wait status is {status}")
    return took


def python(scene: Scene, plan: Plan) -> None:
    """create, start, wait and delete in this process, against the commands of each runtime."""
    bundle, name = scene.bundles("minimal").exit, scene.container("api")
    root, pid_file = os.path.join(scene.scratch, "root-api"), os.path.join(scene.scratch, "api.pid")
    for number in range(plan.rounds + 2):
        for one in scene.runtimes:
            commands = _by_commands(name, one, bundle, pid_file)
            functions = _in_process(name, bundle, root, pid_file) if one.name == "pyrunc" else 0.0
            if number < 2:
                continue  # warming up
            row = scene.figures.row
            if functions:
                row(scene.view, "minimal", "python", "short life", "pyrunc").add(ms=functions)
                row(scene.view, "minimal", "python", "by commands", "pyrunc").add(ms=commands)
            else:
                row(scene.view, "minimal", "python", "short life", one.name).add(ms=commands)


SECTIONS = {"hot": hot, "cold": cold, "first": first, "series": series, "scaling": scaling, "python": python}
