"""The verbs of the command line: parsed options become requests to the runtime, results become text.

A handler returns the text for stdout, or the texts for stdout and stderr, or the exit status. Each imports what it
needs, so that a verb loads nothing else.
"""

from __future__ import annotations

import errno
import os

from pyrunc.cli.context import make_default_root
from pyrunc.errors import KernelError, PyruncError, UsageError, absolute
from pyrunc.requests import CheckpointOptions, CreateOptions, ExecOptions, RestoreOptions, RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from pyrunc.cli.parse import Parsed
    from pyrunc.requests import Context, CriuOptions, ProcessOptions

    Wanted = TypeVar("Wanted", bound=CriuOptions | ProcessOptions)
    Result = str | int | tuple[str, str]
    Handler = Callable[[Context, Parsed], Result]

# The default directory of the image files, below the current directory, as in runc.
_IMAGE_PATH = "checkpoint"


def _bundle(parsed: Parsed) -> str:
    return parsed.text("bundle") or absolute(".")


def _filled(wanted: Wanted, parsed: Parsed) -> Wanted:
    """Fill the request from the options: an attribute has the name of its option, "_" for "-". Raise UsageError."""
    for name, value in parsed.given.items():
        attribute = name.replace("-", "_")
        if hasattr(wanted, attribute):
            setattr(wanted, attribute, value)
    # No limit of open files allows more; to try them all would take long.
    if not 0 <= parsed.number("preserve-fds") <= 1 << 20:
        raise UsageError(
            f'invalid value "{parsed.number("preserve-fds")}" for flag -preserve-fds',
            hint="give the number of descriptors, counted from 3",
        )
    return wanted


def _format(parsed: Parsed) -> str:
    form = parsed.text("format") or "table"
    if form not in ("table", "json"):
        raise UsageError(f"invalid format option: '{form}'", hint="give table or json")
    return form


def _create(ctx: Context, parsed: Parsed) -> Result:
    wanted = _filled(CreateOptions(), parsed)
    if not ctx.root_explicit:
        make_default_root(ctx.root)
    from pyrunc import runtime

    runtime.create(ctx, parsed.arguments[0], _bundle(parsed), wanted)
    return 0


def _run(ctx: Context, parsed: Parsed) -> Result:
    wanted = _filled(RunOptions(), parsed)
    if not ctx.root_explicit:
        make_default_root(ctx.root)
    from pyrunc import runtime
    from pyrunc.host import console

    console.process_ends = True
    return runtime.run(ctx, parsed.arguments[0], _bundle(parsed), wanted)


def _exec(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc.config import exec_process

    wanted = _filled(ExecOptions(), parsed)
    wanted.cgroup = exec_process.sub_cgroups(parsed.texts("cgroup"))
    if not wanted.process:
        wanted.args = parsed.arguments[1:]
        exec_process.check(wanted)
    from pyrunc import runtime
    from pyrunc.host import console

    console.process_ends = True
    return runtime.exec_(ctx, parsed.arguments[0], wanted)


def _checkpoint(ctx: Context, parsed: Parsed) -> Result:
    wanted = _filled(CheckpointOptions(), parsed)
    wanted.image_path = wanted.image_path or absolute(_IMAGE_PATH)
    from pyrunc import runtime

    runtime.checkpoint(ctx, parsed.arguments[0], wanted)
    return 0


def _restore(ctx: Context, parsed: Parsed) -> Result:
    wanted = _filled(RestoreOptions(), parsed)
    wanted.image_path = wanted.image_path or absolute(_IMAGE_PATH)
    if not ctx.root_explicit:
        make_default_root(ctx.root)
    from pyrunc import runtime
    from pyrunc.host import console

    console.process_ends = True
    return runtime.restore(ctx, parsed.arguments[0], _bundle(parsed), wanted)


def _start(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime

    runtime.start(ctx, parsed.arguments[0], parsed.start_record)
    return 0


def _state(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime
    from pyrunc.json_text import document as json_text

    # Without a newline at the end, as in runc.
    return json_text.dumps(runtime.state(ctx, parsed.arguments[0]), indent=2)


def _each(ctx: Context, parsed: Parsed, act: Callable[[str], None]) -> Result:
    """Call `act` for the container, or with --regex for all that match; one failure does not stop the others."""
    if not parsed.switch("regex"):
        act(parsed.arguments[0])
        return 0
    from pyrunc import runtime

    first: PyruncError | None = None
    for name in runtime.matching(ctx, parsed.arguments[0]):
        try:
            act(name)
        except PyruncError as error:
            error.message = f"container '{name}': {error.message}"
            if first is None:
                first = error
            else:
                first.add_note(str(error))
    if first is not None:
        raise first
    return 0


def _kill(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc.cli import signals

    given = parsed.arguments[1] if len(parsed.arguments) > 1 else ""
    number = signals.number(given or "TERM")
    from pyrunc import runtime

    return _each(ctx, parsed, lambda name: runtime.kill(ctx, name, number, parsed.switch("all")))


def _delete(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime

    return _each(ctx, parsed, lambda name: runtime.delete(ctx, name, parsed.switch("force")))


def _pause(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime

    runtime.pause(ctx, parsed.arguments[0])
    return 0


def _resume(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime

    runtime.resume(ctx, parsed.arguments[0])
    return 0


def _list(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import printable
    from pyrunc.cli import output

    form = _format(parsed)
    documents: list[dict[str, object]] = []
    problems: list[str] = []
    # The default root does not exist before the first container; a root given by --root must exist.
    if os.path.lexists(ctx.root):
        from pyrunc import runtime

        documents, problems = runtime.list_(ctx)
    elif ctx.root_explicit:
        raise KernelError("open", errno.ENOENT, ctx.root, hint="--root must name a directory that exists")
    if parsed.switch("quiet"):
        text = "".join(printable.line(str(document["id"])) + "\n" for document in documents)
    else:
        text = output.list_json(documents) if form == "json" else output.list_table(documents)
    return text, "".join(printable.line(problem) + "\n" for problem in problems)


def _ps(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime
    from pyrunc.cli import output

    form = _format(parsed)
    pids = runtime.ps(ctx, parsed.arguments[0])
    return output.ps_json(pids) if form == "json" else output.ps_table(pids, parsed.arguments[1:])


def _update(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import log, runtime
    from pyrunc.config import load as config
    from pyrunc.config import resource_update

    source = parsed.text("resources")
    if source:
        # A document takes the place of the options, as in runc.
        runtime.update(ctx, parsed.arguments[0], config.read_resources(source))
        return 0
    resources, names = resource_update.from_options(parsed.given)
    for option in resource_update.WITHOUT_EFFECT:
        if parsed.text(option):
            log.warning(f"--{option} is ignored: current kernels have no limit for kernel memory alone")
    try:
        runtime.update(
            ctx,
            parsed.arguments[0],
            resources,
            l3_cache_schema=parsed.text("l3-cache-schema"),
            mem_bw_schema=parsed.text("mem-bw-schema"),
        )
    except PyruncError as error:
        error.path = names.get(error.path or "", error.path)
        raise
    return 0


def _mounts(ctx: Context, parsed: Parsed) -> Result:
    what, container_id, file = parsed.arguments
    if what not in ("add", "remove"):
        raise UsageError(f"unknown subcommand 'mounts {what}'", hint="give add or remove")
    from pyrunc import runtime
    from pyrunc.config import load as config

    listed = config.read_mounts(file)
    if what == "add":
        runtime.add_mounts(ctx, container_id, listed)
    else:
        runtime.remove_mounts(ctx, container_id, [mount["destination"] for mount in listed])
    return 0


def _wait(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime

    # Printed and not returned: our own exit status says whether waiting worked.
    return f"{runtime.wait(ctx, parsed.arguments[0])}\n"


def _events(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime
    from pyrunc.json_text import document as json_text
    from pyrunc.verbs import events as verb_events

    container_id = parsed.arguments[0]
    interval = verb_events.duration(
        parsed.text("interval") if "interval" in parsed.given else verb_events.DEFAULT_INTERVAL
    )
    if parsed.switch("stats"):
        shown: dict[str, object] = {
            "type": "stats",
            "id": container_id,
            "data": runtime.stats(ctx, container_id),
        }
        return json_text.dumps(shown) + "\n"
    for event in runtime.events(ctx, container_id, interval, reader=1):
        # Not buffered: the reader waits for the line.
        line = memoryview(json_text.dumps(event).encode() + b"\n")
        while line:
            line = line[os.write(1, line) :]
    return 0


def _version(_ctx: Context, _parsed: Parsed) -> Result:
    from pyrunc.reports.version import version

    return version()


def _features(_ctx: Context, _parsed: Parsed) -> Result:
    from pyrunc.reports import features

    return features.render()


def _completion(_ctx: Context, parsed: Parsed) -> Result:
    from pyrunc.cli import completion

    return completion.script(parsed.arguments[0])


def _info(_ctx: Context, _parsed: Parsed) -> Result:
    from pyrunc.reports import info

    return info.render()


def _spec(_ctx: Context, parsed: Parsed) -> Result:
    from pyrunc.reports import spec as spec_template

    spec_template.write(_bundle(parsed), parsed.text("file"), rootless=parsed.switch("rootless"))
    return 0


def _explain(ctx: Context, parsed: Parsed) -> Result:
    from pyrunc import runtime
    from pyrunc.reports import explain

    plan = runtime.explain(ctx, _bundle(parsed), CreateOptions(config=parsed.text("config")))
    if not parsed.switch("json"):
        return explain.text(plan)
    from pyrunc.json_text import document as json_text

    return json_text.dumps(explain.document(plan), indent=2) + "\n"


HANDLERS: dict[str, Handler] = {
    "checkpoint": _checkpoint,
    "completion": _completion,
    "create": _create,
    "delete": _delete,
    "events": _events,
    "exec": _exec,
    "explain": _explain,
    "features": _features,
    "info": _info,
    "kill": _kill,
    "list": _list,
    "mounts": _mounts,
    "pause": _pause,
    "ps": _ps,
    "restore": _restore,
    "resume": _resume,
    "run": _run,
    "spec": _spec,
    "start": _start,
    "state": _state,
    "update": _update,
    "version": _version,
    "wait": _wait,
}
