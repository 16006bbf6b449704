"""The direction of imports, read from the source with ast: who may know whom, and who may load what."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = os.path.join(support.PROJECT, "pyrunc")

# The rooms, from the bottom up. A module imports from rooms below its own, and inside its own room where that is said.
ROOMS: list[tuple[str, bool, set[str]]] = [
    ("base", True, {"pyrunc", "pyrunc.errors"}),
    (
        # No system call, no file: what they say depends on their arguments alone.
        "pure",
        True,
        {
            "pyrunc.spec.capabilities",
            "pyrunc.cgroups.device_rules",
            "pyrunc.cgroups.resources",
            "pyrunc.cgroups.systemd.unit",
            "pyrunc.cgroups.systemd.variants",
            "pyrunc.criu.log",
            "pyrunc.criu.request",
            "pyrunc.criu.rpc",
            "pyrunc.spec.devices",
            "pyrunc.launch.dialogue",
            "pyrunc.config.exec_process",
            "pyrunc.criu.externals",
            "pyrunc.launch.failures",
            "pyrunc.spec.id_mappings",
            "pyrunc.spec.namespaces",
            "pyrunc.json_text.document",
            "pyrunc.json_text.explain",
            "pyrunc.spec.mount_options",
            "pyrunc.plan.planner",
            "pyrunc.plan.changes",
            "pyrunc.plan.mounts",
            "pyrunc.plan.numbers",
            "pyrunc.plan.process",
            "pyrunc.plan.rootfs",
            "pyrunc.printable",
            "pyrunc.requests",
            "pyrunc.config.rules.document",
            "pyrunc.config.rules.fail",
            "pyrunc.config.rules.linux",
            "pyrunc.config.rules.mounts",
            "pyrunc.config.rules.process",
            "pyrunc.config.rules.resources",
            "pyrunc.config.rules.seccomp",
            "pyrunc.config.schema",
            "pyrunc.seccomp.profile",
            "pyrunc.cli.signals",
            "pyrunc.cgroups.stats",
            "pyrunc.spec.shapes",
            "pyrunc.config.resource_update",
            "pyrunc.kernel.view",
            "pyrunc.plan.wire",
        },
    ),
    ("kernel", False, {"pyrunc.launch.ending", "pyrunc.kernel.process"}),
    (
        "hands",
        False,
        {
            "pyrunc.cgroups.manager",
            "pyrunc.cgroups.files",
            "pyrunc.cgroups.systemd.driver",
            "pyrunc.cgroups.v1",
            "pyrunc.cgroups.v2",
            "pyrunc.config.load",
            "pyrunc.host.console",
            "pyrunc.criu.server",
            "pyrunc.criu.files",
            "pyrunc.criu.process",
            "pyrunc.criu.repair",
            "pyrunc.launch.hooks",
            "pyrunc.host.gather",
            "pyrunc.launch.init",
            "pyrunc.log",
            "pyrunc.host.network",
            "pyrunc.host.notify",
            "pyrunc.host.resctrl",
            "pyrunc.container.exit_status",
            "pyrunc.seccomp.compile",
            "pyrunc.container.directory",
            "pyrunc.host.terminal",
            "pyrunc.launch.detached_mounts",
            "pyrunc.launch.id_maps",
        },
    ),
    (
        "runtime",
        True,
        {
            "pyrunc.verbs.new_container",
            "pyrunc.launch.conversation",
            "pyrunc.runtime",
            "pyrunc.verbs.checkpoint",
            "pyrunc.verbs.create",
            "pyrunc.verbs.exec",
            "pyrunc.verbs.events",
            "pyrunc.verbs.mounts",
            "pyrunc.verbs.restore",
            "pyrunc.verbs.wait",
            "pyrunc.verbs.update",
        },
    ),
    (
        "command line",
        True,
        {
            "pyrunc.__main__",
            "pyrunc.boot",
            "pyrunc.cli.main",
            "pyrunc.cli.verbs",
            "pyrunc.cli.completion",
            "pyrunc.reports.explain",
            "pyrunc.reports.features",
            "pyrunc.reports.info",
            "pyrunc.startup.entry",
            "pyrunc.cli.options",
            "pyrunc.cli.output",
            "pyrunc.startup.snapshot",
            "pyrunc.reports.spec",
            "pyrunc.timing.timeline",
            "pyrunc.timing.trace",
            "pyrunc.cli.help",
        },
    ),
]

# Hands that take each other's: the package's own parts.
SAME_ROOM = {
    ("pyrunc.cgroups.manager", "pyrunc.cgroups.files"),
    ("pyrunc.cgroups.manager", "pyrunc.cgroups.systemd.driver"),
    ("pyrunc.cgroups.manager", "pyrunc.cgroups.v1"),
    ("pyrunc.cgroups.manager", "pyrunc.cgroups.v2"),
    ("pyrunc.cgroups.systemd.driver", "pyrunc.cgroups.manager"),
    ("pyrunc.cgroups.systemd.driver", "pyrunc.cgroups.files"),
    ("pyrunc.cgroups.systemd.driver", "pyrunc.cgroups.v1"),
    ("pyrunc.cgroups.systemd.driver", "pyrunc.cgroups.v2"),
    ("pyrunc.cgroups.v1", "pyrunc.cgroups.files"),
    ("pyrunc.cgroups.v2", "pyrunc.cgroups.files"),
    ("pyrunc.cgroups.v2", "pyrunc.cgroups.v1"),
    ("pyrunc.host.console", "pyrunc.host.terminal"),
    ("pyrunc.criu.server", "pyrunc.criu.process"),
    ("pyrunc.criu.repair", "pyrunc.criu.process"),
    ("pyrunc.launch.init", "pyrunc.log"),
    ("pyrunc.launch.init", "pyrunc.launch.detached_mounts"),
    ("pyrunc.container.exit_status", "pyrunc.container.directory"),
}

# Outside libraries: the one module that owns each, and whether it may load it with itself.
OWNERS = {
    "_cffi_backend": set[str](),
    "cffi": set[str](),
    "jsonschema": {"pyrunc.config.schema.explain"},
    "prctl": {"pyrunc.kernel.process"},
    "pyroute2": {"pyrunc.host.network"},
    "pyrunc._shim": {"pyrunc.kernel.process"},
}

# What any module may load at module level: built into the interpreter, or loaded by it anyway, or one small C module.
ALLOWED_AT_TOP = {
    *("_frozen_importlib_external", "marshal"),
    *(
        "__future__",
        "_json",
        "_signal",
        "_socket",
        "errno",
        "fcntl",
        "gc",
        "os",
        "posix",
        "select",
        "sys",
        "time",
    ),
}

# Off the path of create, start, state, kill, delete, run and exec: these may load what they like.
OFF_THE_HOT_PATH = {
    "pyrunc.criu.server": {"shutil"},
    "pyrunc.criu.files": {"json", "re", "stat"},
    "pyrunc.criu.log": {"re"},
    "pyrunc.criu.repair": {"re", "shutil"},
    "pyrunc.reports.features": {"importlib.util", "json"},
    "pyrunc.json_text.explain": {"json"},
    "pyrunc.host.network": {
        *("contextlib", "functools", "socket", "struct"),
        *(f"pyroute2.netlink.rtnl.{name}" for name in ("ifaddrmsg", "ifinfmsg", "rtmsg")),
    },
    "pyrunc.verbs.checkpoint": {"stat"},
    "pyrunc.verbs.restore": {"json"},
    "pyrunc.config.schema.explain": {"difflib", "json", "jsonschema", "jsonschema.exceptions", "re"},
    "pyrunc.config.schema.generate": {"inspect", "json"},
    "pyrunc.spec.shapes": {"typing"},
    "pyrunc.reports.spec": {"json"},
    "pyrunc.timing.timeline": {"itertools"},
    "pyrunc.cli.help": {"difflib"},
}

# A pure module's word depends on nothing outside: these would let the outside in. Of `os` it may have what only thinks.
THINKING_ONLY = {
    *(
        "os.path.normpath",
        "os.path.join",
        "os.path.dirname",
        "os.path.basename",
        "os.path.isabs",
        "os.path.relpath",
    ),
    *("os.strerror", "os.major", "os.minor", "os.makedev", "os.fsencode", "os.fsdecode"),
}
IMPURE = {"posix", "fcntl", "select", "time", "_socket", "subprocess", "socket"}


class Import:
    """One import: the module that has it, what it names, whether it runs when the module is loaded."""

    def __init__(self, importer: str, target: str, line: int, *, at_top: bool) -> None:
        self.importer = importer
        self.target = target
        self.line = line
        self.at_top = at_top

    def __repr__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def modules() -> dict[str, str]:
    """Every module of the package: dotted name to path."""
    found: dict[str, str] = {}
    for directory, names, files in os.walk(SOURCE):
        names[:] = [name for name in names if name != "__pycache__"]
        for file in files:
            if file.endswith(".py"):
                relative = os.path.relpath(os.path.join(directory, file), support.PROJECT)
                found[relative.removesuffix(".py").replace(os.sep, ".").removesuffix(".__init__")] = relative
    return found


MODULES = modules()


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _targets(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports are banned"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in MODULES or whole == "pyrunc._shim" else str(node.module)


def _walk(importer: str, nodes: list[ast.stmt], *, at_top: bool) -> Iterator[Import]:
    for node in nodes:
        if _is_type_checking(node):
            continue
        for target in _targets(node):
            yield Import(importer, target, node.lineno, at_top=at_top)
        inside = at_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for part in ("body", "orelse", "finalbody"):
            yield from _walk(importer, getattr(node, part, []), at_top=inside)
        for handler in getattr(node, "handlers", []):
            yield from _walk(importer, handler.body, at_top=inside)


def imports_of(module: str) -> list[Import]:
    """Every import of a module that runs, those inside functions included."""
    with open(os.path.join(support.PROJECT, MODULES[module]), encoding="utf-8") as stream:
        return list(_walk(module, ast.parse(stream.read()).body, at_top=True))


IMPORTS = [entry for module in MODULES for entry in imports_of(module)]


def room(module: str) -> int:
    """The index of the module's room; a module of a listed package lives where the package does, a face is empty."""
    if MODULES.get(module, "").endswith("/__init__.py"):
        return 0
    while module:
        for index, (_, _, names) in enumerate(ROOMS):
            if module in names:
                return index
        module = module.rpartition(".")[0] if module.count(".") > 1 else ""
    return -1


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_room(module: str) -> None:
    """A new module says where it belongs before anybody imports it."""
    assert room(module) >= 0, f"{module} is in no room of tests/test_imports.py"


def _allowed(entry: Import) -> bool:
    mine, other = room(entry.importer), room(entry.target)
    if other < mine:
        return True
    package = entry.importer.rpartition(".")[0]
    inside_package = package != "pyrunc" and entry.target.startswith(package)
    return mine == other and (
        ROOMS[mine][1] or (entry.importer, entry.target) in SAME_ROOM or inside_package
    )


def test_arrows_point_down() -> None:
    """No module knows one above it, and in the room of hands only a package's own parts know each other."""
    ours = [entry for entry in IMPORTS if entry.target in MODULES]
    assert len(ours) > 50
    assert not [entry for entry in ours if not _allowed(entry)]


def test_libraries_have_one_owner() -> None:
    """jsonschema, pyroute2, prctl and the shim are each imported in one file, and never where a verb pays for it."""
    wrong = []
    for entry in IMPORTS:
        for library, owners in OWNERS.items():
            if entry.target == library or entry.target.startswith(library + "."):
                late = (
                    library in ("jsonschema", "prctl", "pyroute2") and entry.importer not in OFF_THE_HOT_PATH
                )
                late = late and entry.at_top
                if entry.importer not in owners or late:
                    wrong.append(entry)
    assert not wrong


def test_top_level_imports_are_cheap() -> None:
    """Loading a module loads nothing of the standard library that start-up has not loaded already."""
    wrong = [
        entry
        for entry in IMPORTS
        if entry.at_top
        and entry.target not in MODULES
        and entry.target not in ALLOWED_AT_TOP
        and entry.target != "pyrunc._shim"
        and entry.target not in OFF_THE_HOT_PATH.get(entry.importer, set())
    ]
    assert not wrong


def test_hot_modules_do_not_load_cold_ones() -> None:
    """Modules that load heavy libraries are only imported inside functions, or by each other."""
    cold = set(OFF_THE_HOT_PATH)
    wrong = [
        entry for entry in IMPORTS if entry.at_top and entry.target in cold and entry.importer not in cold
    ]
    assert not wrong


def test_pure_modules_ask_nobody() -> None:
    """A pure module imports neither the kernel's face nor what reads files, the clock or the environment."""
    pure = next(names for name, _, names in ROOMS if name == "pure")
    assert not [entry for entry in IMPORTS if entry.importer in pure and entry.target in IMPURE]
    wrong: list[str] = []
    for module in sorted(pure & set(MODULES)):
        with open(os.path.join(support.PROJECT, MODULES[module]), encoding="utf-8") as stream:
            tree = ast.parse(stream.read())
        parts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names = {
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and id(node) not in parts
        }
        wrong += [
            f"{module}: {name}" for name in names if name.startswith("os.") and name not in THINKING_ONLY
        ]
    assert not wrong
