"""resctrl: the group of a container that has linux.intelRdt, made, joined, changed, measured and removed.

Sources: config-linux.md, IntelRdt, and the kernel's Documentation/filesystems/resctrl.rst. The state has (role,
directory) pairs, the `places`: `root` is the mount point of resctrl, `group` the class of service, `mon` the
monitoring group in it, and `made` each of these that delete removes, parents first.
"""

from __future__ import annotations

import errno
import os

from pyrunc.errors import ConfigError, KernelError, check_shortage
from pyrunc.spec.resctrl import CAT, RESCTRL_OWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.spec.shapes import IntelRdt

    Places = Sequence[tuple[str, str]]
    Schemas = dict[str, dict[str, int | str]]
    Json = dict[str, object]

_PATH = "$.linux.intelRdt"
# Values of these are decimal, those of caches hexadecimal.
_BANDWIDTH = ("MB", "SMBA")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def _read_or_nothing(path: str) -> str:
    try:
        return _read(path)
    except OSError as error:
        check_shortage("open", error, path)
        return ""


def _explained(root: str, call: str, error: OSError, arg: str, path: str) -> KernelError:
    """Return an error with the kernel's explanation, which is in a file unless it is "ok"."""
    said = _read_or_nothing(f"{root}/info/last_cmd_status").strip()
    hint = f"resctrl says: {said}" if said and said != "ok" else None
    return KernelError(call, error.errno or errno.EIO, arg, path=path, hint=hint)


def _write(root: str, file: str, text: str, path: str) -> None:
    """Write with one write(2): resctrl accepts all lines or none. Raise KernelError."""
    call = "open"
    try:
        # Without O_CREAT: a directory without this file is not a group.
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        call = "write"
        try:
            os.write(fd, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
    except OSError as error:
        raise _explained(root, call, error, file, path) from error


def _schemas(text: str) -> Schemas:
    """Return lines such as "L3:0=7ff;1=1f" by resource and domain; of two for one domain the last counts."""
    found: Schemas = {}
    for line in text.splitlines():
        name, _, rest = line.strip().partition(":")
        table = found.setdefault(name, {})
        for pair in rest.split(";") if rest else ():
            domain, _, value = pair.strip().partition("=")
            try:
                table[domain] = int(value, 10 if name in _BANDWIDTH else 16)
            except ValueError:
                table[domain] = value
    return found


def _same(root: str, name: str, wanted: int | str, there: int | str | None) -> bool:
    if wanted == there:
        return True
    step = _number(f"{root}/info/{name}/bandwidth_gran") if name in _BANDWIDTH else 0
    # The file has the written value rounded up to what the processor supports.
    return bool(step) and isinstance(wanted, int) and (wanted + step - 1) // step * step == there


def _differing(root: str, lines: Sequence[str], text: str) -> str | None:
    """Return the first resource whose value in `text` differs from `lines`; those that `lines` lacks are ignored."""
    there = _schemas(text)
    for name, table in _schemas("\n".join(lines)).items():
        for domain, value in table.items():
            if not _same(root, name, value, there.get(name, {}).get(domain)):
                return name
    return None


class Group:
    """Return the group of a new container. Raise ConfigError if it cannot have the container's name."""

    __slots__ = ("_fresh", "_own", "_wanted", "group", "made", "mon", "root")

    def __init__(self, wanted: IntelRdt, container_id: str, root: str) -> None:
        name = wanted.get("closID") or container_id
        if name in RESCTRL_OWN:
            raise ConfigError(
                f"no class of service can be called '{name}' as the container is",
                path=_PATH,
                hint="set intelRdt.closID, or choose another id",
            )
        self._wanted = wanted
        self._own = not wanted.get("closID")
        # We have just made it.
        self._fresh: list[str] = []
        self.root = root
        self.group = root if name == "/" else f"{root}/{name}"
        self.mon = f"{self.group}/mon_groups/{container_id}" if wanted.get("enableMonitoring") else ""
        # MUST NOT be removed if it is named by closID or existed before.
        self.made = [self.group] if self._own and not os.path.isdir(self.group) else []
        self.made += [self.mon] if self.mon else []

    @property
    def places(self) -> list[tuple[str, str]]:
        """Return the pairs for the state, also before create()."""
        found = [("root", self.root), ("group", self.group)]
        found += [("mon", self.mon)] if self.mon else []
        return found + [("made", path) for path in self.made]

    def _lines(self) -> tuple[list[str], list[str]]:
        first = [self._wanted.get("l3CacheSchema") or "", self._wanted.get("memBwSchema") or ""]
        return [line for line in first if line], list(self._wanted.get("schemata") or ())

    def create(self) -> None:
        """Make what is missing and write the schemas.

        Raise ConfigError if the class of service does not exist or has other schemas; KernelError. What was made
        before the error is left to undo().
        """
        first, last = self._lines()
        is_new = self._make_group(bool(first or last))
        if not is_new and not self._own:
            self._compare(first + last)
        # "MUST write l3CacheSchema first", "schemata must be written last"
        field = "l3CacheSchema" if self._wanted.get("l3CacheSchema") else "memBwSchema"
        self._write_schemas(first, f"{_PATH}.{field}")
        self._write_schemas(last, f"{_PATH}.schemata")
        if self.mon:
            self._mkdir(self.mon, f"{_PATH}.enableMonitoring")

    def _write_schemas(self, lines: Sequence[str], path: str) -> None:
        if lines:
            _write(self.root, f"{self.group}/schemata", "".join(f"{line}\n" for line in lines), path)

    def _make_group(self, may_make: bool) -> bool:
        if os.path.isdir(self.group):
            self._not_ours()
            return False
        if not self._own and not may_make:
            raise ConfigError(
                f"the class of service '{self.group}' does not exist",
                path=f"{_PATH}.closID",
                hint="without l3CacheSchema, memBwSchema or schemata it must exist already",
            )
        self._mkdir(self.group, _PATH if self._own else f"{_PATH}.closID")
        return True

    def _not_ours(self) -> None:
        if self.group in self.made:
            self.made.remove(self.group)

    def _mkdir(self, directory: str, path: str) -> None:
        try:
            os.mkdir(directory, 0o755)
        except OSError as error:
            raise _explained(self.root, "mkdir", error, directory, path) from error
        self._fresh.append(directory)

    def _compare(self, lines: Sequence[str]) -> None:
        file = f"{self.group}/schemata"
        if lines and (name := _differing(self.root, lines, _read_or_nothing(file))):
            fields = {"L3": "l3CacheSchema", "MB": "memBwSchema"}
            field = fields.get(name, "")
            raise ConfigError(
                f"the class of service '{self.group}' exists with another schema for {name}",
                path=f"{_PATH}.{field}" if field and self._wanted.get(field) else f"{_PATH}.schemata",
                hint=f"see {file}; a closID stands for one set of schemas, whoever uses it",
            )

    def attach(self, pid: int) -> None:
        """Move a process with one thread into it. Raise KernelError."""
        attach(self.places, pid)

    def undo(self) -> None:
        """Remove what create() made, a class of service only if it has no other processes. Raise KernelError."""
        for directory in reversed(self._fresh):
            if self._own or directory == self.mon or not _read_or_nothing(f"{directory}/tasks").strip():
                _rmdir(self.root, directory)
        self._fresh.clear()


def _all(places: Places, role: str) -> list[str]:
    return [path for name, path in places if name == role]


def attach(places: Places, pid: int) -> None:
    """Move a process with one thread into the container's group. Raise KernelError.

    It is not an error if the group is gone, because resctrl was unmounted or the group was removed.
    """
    root = _all(places, "root")[0]
    for directory in _all(places, "group") + _all(places, "mon"):
        if os.path.isdir(directory):
            _write(root, f"{directory}/tasks", f"{pid}\n", _PATH)


def _rmdir(root: str, directory: str) -> None:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _explained(root, "rmdir", error, directory, _PATH) from error


def remove(places: Places) -> None:
    """Remove what create made. Raise KernelError."""
    for directory in reversed(_all(places, "made")):
        _rmdir(_all(places, "root")[0], directory)


def update(places: Places, l3_cache_schema: str, mem_bw_schema: str) -> Callable[[BaseException], None]:
    """Set the schemas that are not "". Return a function that restores them and adds notes to its argument if it fails.

    Raise ConfigError if the kernel has no such resource, KernelError.
    """
    root = _all(places, "root")[0]
    file = f"{_all(places, 'group')[0]}/schemata"
    check_can(root, l3_cache_schema, mem_bw_schema)
    wanted = [schema for schema in (l3_cache_schema, mem_bw_schema) if schema]
    names = {schema.partition(":")[0].strip() for schema in wanted}
    try:
        before = [line.strip() for line in _read(file).splitlines()]
    except OSError as error:
        raise KernelError("open", error.errno or errno.EIO, file, path=_PATH) from error
    option = "--l3-cache-schema" if l3_cache_schema else "--mem-bw-schema"
    _write(root, file, "".join(f"{line}\n" for line in wanted), option)

    def undo(reason: BaseException) -> None:
        text = "".join(f"{line}\n" for line in before if line.partition(":")[0] in names)
        try:
            _write(root, file, text, _PATH)
        except KernelError as error:
            reason.add_note(f"while going back: {error}")

    return undo


def check_can(root: str, l3_cache_schema: str, mem_bw_schema: str) -> None:
    """Raise ConfigError if an option of update has no such resource or is not a single line."""
    info = _listed(f"{root}/info")
    for option, text in (("--l3-cache-schema", l3_cache_schema), ("--mem-bw-schema", mem_bw_schema)):
        if "\n" in text:
            raise ConfigError("must be one line", path=option)
    if l3_cache_schema and CAT.isdisjoint(info):
        raise ConfigError("Intel RDT/CAT: l3 cache schema is not enabled", path="--l3-cache-schema")
    if mem_bw_schema and not mem_bw_schema.startswith("MB:"):
        raise ConfigError("must begin with 'MB:'", path="--mem-bw-schema")
    if mem_bw_schema and "MB" not in info:
        text = "Intel RDT/MBA: memory bandwidth schema is not enabled"
        raise ConfigError(text, path="--mem-bw-schema")


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        check_shortage("open", error, directory)
        return []


def _number(file: str) -> int:
    text = _read_or_nothing(file).strip()
    return int(text) if text.isdigit() else 0


def _schema(text: str, resource: str) -> str:
    """Return the last line about a resource, as runc does."""
    return next((line.strip() for line in reversed(text.splitlines()) if resource in line), "")


def stats(places: Places) -> Json:
    """Return `intel_rdt` of runc's stats event, {} if the group is gone. What is absent or 0 is left out."""
    root, group = _all(places, "root")[0], _all(places, "group")[0]
    top, text = (_read_or_nothing(f"{directory}/schemata") for directory in (root, group))
    if not text:
        return {}
    document: Json = {}
    info = _listed(f"{root}/info")
    if not CAT.isdisjoint(info):
        cache = f"{root}/info/{min(CAT.intersection(info))}"
        about: Json = {"cbm_mask": _read_or_nothing(f"{cache}/cbm_mask").strip()}
        about.update({name: _number(f"{cache}/{name}") for name in ("min_cbm_bits", "num_closids")})
        document["l3_cache_info"] = {name: value for name, value in about.items() if value}
        document["l3_cache_schema_root"] = _schema(top, "L3")
        document["l3_cache_schema"] = _schema(text, "L3")
    if "MB" in info:
        names = ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids")
        numbers = {name: _number(f"{root}/info/MB/{name}") for name in names}
        document["mem_bw_info"] = {name: value for name, value in numbers.items() if value}
        document["mem_bw_schema_root"] = _schema(top, "MB")
        document["mem_bw_schema"] = _schema(text, "MB")
    document["schemata"] = text.strip().split("\n")
    document.update(_counters(f"{root}/info/L3_MON/mon_features", (_all(places, "mon") or [group])[0]))
    return {key: value for key, value in document.items() if value}


def _counters(features: str, group: str) -> Json:
    """Return what a group used, one entry per domain; counters that the processor lacks are left out."""
    known = _read_or_nothing(features).split()
    kinds = {"mbm_stats": ("mbm_total_bytes", "mbm_local_bytes"), "cmt_stats": ("llc_occupancy",)}
    domains = [name for name in _listed(f"{group}/mon_data") if name.startswith("mon_L3_")]
    return {
        key: [{name: _number(f"{group}/mon_data/{domain}/{name}") for name in names} for domain in domains]
        for key, names in kinds.items()
        if not set(names).isdisjoint(known)
    }
