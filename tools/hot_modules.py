"""Gather the modules of a hot verb into one file that boot.py reads at a stroke.

    hot_modules.py PACKAGE_DIR OUTPUT [MODULE=FILE]...

Finding, opening and unmarshalling forty small files costs a start as much as what they do. Here their code lies in one
marshalled dictionary, without docstrings, annotations and line tables, which a run without `--debug` never looks at.
The file says for which Python it is; boot.py ignores it under any other and imports as usual.

    magic number of that Python, (called, {module: (is a package, code)}, {module: (is a package, marshalled code)})

The first dictionary is what every create and exec loads, the second what only some do, each marshalled as (called,
code). `called` is the code of functions that a common create, exec or run calls: read first, it lies together. Python
writes reference counts into what it uses, and of a snapshot each page that is written to is copied: snapshot.h.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

PACKAGE = "pyrunc"
# Lines of "module name": the functions that are called, written by tests/runtime/test_hot_calls.py.
CALLS = os.path.join(os.path.dirname(os.path.realpath(__file__)), "hot_calls.txt")
# Where following the imports at module level begins.
ALWAYS = ("pyrunc.cli.main", "pyrunc.cli.verbs", "pyrunc.runtime", "pyrunc.verbs.create")
# With all that a snapshot loads: out of this file it costs each later process no look at a file of its own.
SOMETIMES = (
    *(
        "pyrunc.cgroups.stats",
        "pyrunc.cgroups.systemd.driver",
        "pyrunc.cli.signals",
        "pyrunc.config.exec_process",
    ),
    *(
        "pyrunc.config.resource_update",
        "pyrunc.container.exit_status",
        "pyrunc.host.notify",
        "pyrunc.host.resctrl",
    ),
    *(
        "pyrunc.launch.detached_mounts",
        "pyrunc.launch.failures",
        "pyrunc.launch.id_maps",
        "pyrunc.reports.spec",
        "pyrunc.seccomp.compile",
    ),
    *(
        "pyrunc.startup.snapshot",
        "pyrunc.verbs.delete",
        "pyrunc.verbs.freeze",
        "pyrunc.verbs.lookup",
        "pyrunc.verbs.start",
        "pyrunc.verbs.events",
        "pyrunc.verbs.exec",
        "pyrunc.verbs.update",
        "pyrunc.verbs.wait",
    ),
)


class Bare(ast.NodeTransformer):
    """Drop annotations: building them costs every function definition, and nothing reads them."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Of arguments and the result."""
        self.generic_visit(node)
        node.returns = None
        given = node.args
        for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]:
            if argument is not None:
                argument.annotation = None
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Of __future__: it concerned the annotations, and is a file to find."""
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Of types alone: the block is never run, and its names would be read."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse or ast.copy_location(ast.Pass(), node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Of a variable; without a value nothing is left."""
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def bare_code(code: CodeType, functions: dict[str, CodeType]) -> CodeType:
    """The code without line tables, that of inner functions included; all are noted in `functions` by name."""
    constants = tuple(
        bare_code(item, functions) if isinstance(item, type(code)) else item for item in code.co_consts
    )
    made = code.replace(co_linetable=b"", co_consts=constants)
    functions[code.co_qualname] = made
    return made


def calls() -> dict[str, list[str]]:
    """Module -> names of its functions that are called."""
    found: dict[str, list[str]] = {}
    with open(CALLS, encoding="utf-8") as stream:
        for line in stream:
            module, name = line.split()
            found.setdefault(module, []).append(name)
    return found


class Modules:
    """The modules of the package by name, read from its directory, or from where the build has written them."""

    def __init__(self, directory: str, generated: dict[str, str]) -> None:
        self.directory = directory
        self.generated = generated
        self.calls = calls()

    def path(self, name: str) -> str:
        """The source file of a module, "" if there is none (the shim, or a name within a module)."""
        if name in self.generated:
            return self.generated[name]
        base = os.path.join(self.directory, *name.split(".")[1:])
        if os.path.isdir(base):
            return os.path.join(base, "__init__.py")
        return base + ".py" if os.path.isfile(base + ".py") else ""

    def check(self, name: str) -> None:
        """End the build if a list names a module that does not exist."""
        if not self.path(name):
            raise SystemExit(
                f"{name} is no module of the package: a list in hot_modules.py or hot_calls.txt names it"
            )

    def tree(self, name: str) -> ast.Module:
        """The syntax tree of a module."""
        self.check(name)
        with open(self.path(name), encoding="utf-8") as stream:
            return ast.parse(stream.read())

    def imports(self, name: str) -> list[str]:
        """What a module imports of the package when it is imported itself."""
        found = []
        for node in self.tree(name).body:
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        return [item for item in found if item.split(".")[0] == PACKAGE and self.path(item)]

    def closure(self, roots: tuple[str, ...]) -> list[str]:
        """The roots and all they import, packages before what is in them."""
        seen: set[str] = set()
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += [name.rpartition(".")[0]] if "." in name else []
                waiting += self.imports(name)
        return sorted(seen)

    def compiled(self, name: str) -> tuple[list[CodeType], bool, CodeType]:
        """(code of its functions that are called, is it a package, its code)."""
        tree = ast.fix_missing_locations(Bare().visit(self.tree(name)))
        code = compile(tree, f"{name}", "exec", dont_inherit=True, optimize=2)
        functions: dict[str, CodeType] = {}
        bare = bare_code(code, functions)
        called = [functions[one] for one in self.calls.get(name, ()) if one in functions]
        return called, self.path(name).endswith("__init__.py"), bare


def main(directory: str, output: str, *generated: str) -> None:
    """Write the file. `generated` are MODULE=FILE of modules that are not in the directory."""
    modules = Modules(directory, dict(item.split("=", 1) for item in generated))
    for name in modules.calls:
        modules.check(name)
    always = modules.closure(ALWAYS)
    sometimes = [name for name in modules.closure(SOMETIMES) if name not in always]
    called, first, second = [], {}, {}
    for name in always:
        some, package, code = modules.compiled(name)
        called += some
        first[name] = (package, code)
    for name in sometimes:
        some, package, code = modules.compiled(name)
        second[name] = (package, marshal.dumps((some, code)))
    with open(output, "wb") as stream:
        stream.write(importlib.util.MAGIC_NUMBER)
        marshal.dump((called, first, second), stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
