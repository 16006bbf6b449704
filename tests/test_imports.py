"""The direction of imports, read from the source with ast: who may know whom, and who may load what."""

from __future__ import annotations

import ast
import glob
import os
import re
import tomllib
import types
from typing import TYPE_CHECKING

import hot_modules
import support

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = os.path.join(support.PROJECT, "pyrunc")
HOT_CALLS = os.path.join(support.PROJECT, "tools/hot_calls.txt")

# From the bottom up: the folders and single modules of the package. Each imports from rows above its own in this table,
# which is what lies below it, and those of one row do not know each other. Imports for types alone count as all others.
FOLDERS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in (
        "errors printable requests spec",
        "json_text kernel plan",
        "cgroups config container host log seccomp",
        "launch timing",
        "criu",
        "verbs",
        "reports runtime",
        "cli",
        "startup",
        "__main__ boot",
    )
)

# No system call, no file, no clock: what they answer depends on their arguments alone.
PURE = (
    *(
        "pyrunc.config.rules",
        "pyrunc.json_text",
        "pyrunc.plan",
        "pyrunc.printable",
        "pyrunc.requests",
        "pyrunc.spec",
    ),
    *("pyrunc.cgroups.device_rules", "pyrunc.cgroups.resources", "pyrunc.cgroups.stats"),
    *("pyrunc.cgroups.systemd.unit", "pyrunc.cgroups.systemd.variants", "pyrunc.cli.signals"),
    *("pyrunc.config.exec_process", "pyrunc.config.resource_update"),
    *("pyrunc.config.schema.check", "pyrunc.config.schema.patterns"),
    *("pyrunc.criu.externals", "pyrunc.criu.log", "pyrunc.criu.request", "pyrunc.criu.rpc"),
    *(
        "pyrunc.kernel.wait_status",
        "pyrunc.launch.dialogue",
        "pyrunc.launch.failures",
        "pyrunc.seccomp.profile",
    ),
)

# Outside libraries and the C module: the module or folder that alone imports it.
OWNERS = {
    "_cffi_backend": set[str](),
    "cffi": set[str](),
    "jsonschema": {"pyrunc.config.schema.explain"},
    "prctl": {"pyrunc.kernel.process"},
    "pyroute2": {"pyrunc.host.network"},
    "pyrunc._shim": {"pyrunc.kernel"},
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
    "pyrunc.criu.images": {"json", "re", "stat"},
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

    def __init__(self, importer: str, target: str, line: int, *, at_top: bool, for_types: bool) -> None:
        self.importer = importer
        self.target = target
        self.line = line
        self.at_top = at_top
        self.for_types = for_types

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


def _walk(importer: str, nodes: list[ast.stmt], *, at_top: bool, for_types: bool) -> Iterator[Import]:
    for node in nodes:
        typed = for_types or _is_type_checking(node)
        for target in _targets(node):
            yield Import(importer, target, node.lineno, at_top=at_top, for_types=typed)
        inside = at_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for part in ("body", "orelse", "finalbody"):
            yield from _walk(importer, getattr(node, part, []), at_top=inside, for_types=typed)
        for handler in getattr(node, "handlers", []):
            yield from _walk(importer, handler.body, at_top=inside, for_types=typed)


def tree_of(module: str) -> ast.Module:
    """The syntax tree of a module."""
    with open(os.path.join(support.PROJECT, MODULES[module]), encoding="utf-8") as stream:
        return ast.parse(stream.read())


ALL_IMPORTS = [
    entry
    for module in MODULES
    for entry in _walk(module, tree_of(module).body, at_top=True, for_types=False)
]
# Those that run, inside functions included.
IMPORTS = [entry for entry in ALL_IMPORTS if not entry.for_types]


def is_face(module: str) -> bool:
    """Whether it is the __init__ of a folder."""
    return MODULES[module].endswith("/__init__.py")


def row(module: str) -> int:
    """The row of FOLDERS that the module belongs to, -1 if there is none; the package's own face is below all."""
    folder = module.split(".")[1] if "." in module else ""
    return next((index for index, row in enumerate(FOLDERS) if folder in row), -1)


def is_pure(module: str) -> bool:
    """Whether PURE names it or a folder above it."""
    return any(module == name or module.startswith(f"{name}.") for name in PURE)


def test_every_module_is_in_a_folder_of_the_table() -> None:
    """A new module says where it belongs, and the tables name nothing that is gone."""
    assert not [module for module in MODULES if module != "pyrunc" and row(module) < 0]
    listed = {f"pyrunc.{folder}" for row in FOLDERS for folder in row} | set(PURE)
    assert listed <= set(MODULES)


def test_faces_are_empty() -> None:
    """An import of anything below would load what a face imports: a docstring is all, and the package's versions."""
    faces = [module for module in MODULES if is_face(module) and module != "pyrunc"]
    assert len(faces) > 15
    assert not [module for module in faces if len(tree_of(module).body) > 1]


def test_arrows_point_down() -> None:
    """A module imports from the rows below its own, and of its own row only from its own folder."""
    ours = [entry for entry in ALL_IMPORTS if entry.target in MODULES and entry.target != "pyrunc"]
    assert len(ours) > 50
    wrong = [
        entry
        for entry in ours
        if row(entry.target) >= row(entry.importer)
        and entry.target.split(".")[1] != entry.importer.split(".")[1]
    ]
    assert not wrong


def test_there_is_no_circle() -> None:
    """Not inside a folder either, through functions or for types alone."""
    below: dict[str, set[str]] = {module: set() for module in MODULES}
    for entry in ALL_IMPORTS:
        if entry.target in MODULES and not is_face(entry.target):
            below[entry.importer].add(entry.target)
    # What imports nothing any more is taken away, until only circles and what leads to them are left.
    while leaves := [module for module, targets in below.items() if not targets & below.keys()]:
        for module in leaves:
            del below[module]
    assert not below


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
                mine = any(
                    entry.importer == owner or entry.importer.startswith(f"{owner}.") for owner in owners
                )
                if not mine or late:
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
    """A pure module imports pure ones and errors; of `os` it has what only thinks, of the kernel nothing."""
    pure = [module for module in MODULES if is_pure(module)]
    assert len(pure) > 30
    mine = [entry for entry in IMPORTS if entry.importer in pure]
    allowed = {*pure, "pyrunc", "pyrunc.errors"}
    assert not [entry for entry in mine if entry.target in MODULES and entry.target not in allowed]
    assert not [entry for entry in mine if entry.target in IMPURE]
    wrong: list[str] = []
    for module in pure:
        tree = tree_of(module)
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


def _functions(module: str) -> set[str]:
    """The qualified names of all code in a module, as code objects have them."""
    with open(os.path.join(support.PROJECT, MODULES[module]), encoding="utf-8") as stream:
        waiting = [compile(stream.read(), module, "exec", dont_inherit=True)]
    found = set()
    while waiting:
        code = waiting.pop()
        found.add(code.co_qualname)
        waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return found


def _modules_named_in(module: str, name: str) -> set[str]:
    """The modules of ours in a module's list or keys called `name`, from the source, as all else here."""
    for node in tree_of(module).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name:
            texts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
            return {text for text in texts if isinstance(text, str) and text.startswith("pyrunc.")}
    raise AssertionError(f"{module} has no {name}")


def test_lists_name_modules_that_exist() -> None:
    """A wrong name in one of these would only make a command slower, or a file missing: nobody would notice."""
    with open(HOT_CALLS, encoding="utf-8") as stream:
        called = [line.split() for line in stream]
    in_snapshot = _modules_named_in("pyrunc.startup.snapshot", "MODULES")
    listed = {*hot_modules.ALWAYS, *hot_modules.SOMETIMES, *(module for module, _ in called)}
    listed |= in_snapshot | _modules_named_in("pyrunc.timing.trace", "SEAMS")
    assert not listed - set(MODULES)
    functions = {module: _functions(module) for module in {module for module, _ in called}}
    assert not [f"{module} {name}" for module, name in called if name not in functions[module]]
    # What a snapshot loads comes out of one file: each folder more is looked at by every command.
    held = hot_modules.Modules(SOURCE, {}).closure((*hot_modules.ALWAYS, *hot_modules.SOMETIMES))
    loaded = hot_modules.Modules(SOURCE, {}).closure(tuple(sorted(in_snapshot)))
    assert set(loaded) <= set(held)


def test_the_build_knows_every_folder() -> None:
    """meson.build lists them: what Python leaves in one that is missing there would be installed."""
    with open(os.path.join(support.PROJECT, "meson.build"), encoding="utf-8") as stream:
        listed = re.search(r"^packages = \[(.*?)^\]", stream.read(), flags=re.DOTALL | re.MULTILINE)
    assert listed
    folders = {
        os.path.relpath(os.path.dirname(MODULES[module]), "pyrunc")
        for module in MODULES
        if is_face(module) and module != "pyrunc"
    }
    assert set(re.findall(r"'([\w/]+)'", listed.group(1))) == folders


def test_exceptions_of_the_linter_name_files_that_exist() -> None:
    """A pattern that fits nothing is left behind by a file that was moved."""
    with open(os.path.join(support.PROJECT, "pyproject.toml"), "rb") as stream:
        document = tomllib.load(stream)
    patterns = document["tool"]["ruff"]["lint"]["per-file-ignores"]
    assert not [
        pattern
        for pattern in patterns
        if not glob.glob(os.path.join(support.PROJECT, pattern), recursive=True)
    ]
