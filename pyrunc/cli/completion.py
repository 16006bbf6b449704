"""The verb `completion`: shell completion scripts, generated from the tables in options.py."""

from __future__ import annotations

from pyrunc.cli import options
from pyrunc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHELLS = ("bash", "fish", "zsh")

_BASH = """\
_pyrunc() {{
	local current=${{COMP_WORDS[COMP_CWORD]}} verb= word words= skip= root=()
	for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
		if [ -n "$skip" ]; then
			[ "$skip" != --root ] || root=(--root "$word")
			skip=
			continue
		fi
		case $word in
		{takes}) skip=$word ;;
		-* | =) ;;
		*)
			verb=$word
			break
			;;
		esac
	done
	case $verb in
	'') words='{start}' ;;
{verbs}	esac
	case $verb in
	{containers})
		[[ $current == -* ]] || words+=" $(pyrunc "${{root[@]}}" list --quiet 2>/dev/null)"
		;;
	esac
	COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _pyrunc pyrunc
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
# zsh finds this file by its name and runs it at the first completion, so it must answer that one as well.
_ZSH_INSTALLED = "#compdef pyrunc\n{}_bash_complete -o bashdefault -o default -F _pyrunc\n"


def _shown() -> list[str]:
    return list(options.COMMANDS)


def _long(table: Sequence[options.Option]) -> list[str]:
    return [f"--{name}" for name, _, _, text in table if text]


def _of_containers() -> list[str]:
    """The verbs whose first argument is the id of a container that exists."""
    fresh = ("create", "run", "restore")
    return [
        name
        for name in _shown()
        if "<container-id>" in options.COMMANDS[name].arguments and name not in fresh
    ]


def _bash() -> str:
    takes = [f"--{name}" for name, _, kind, _ in options.GLOBALS if kind != "switch"]
    verbs = ""
    for name in _shown():
        words = _long((*options.COMMANDS[name].options, options.GLOBALS[-1]))
        if name == "help":
            words += _shown()
        elif name == "completion":
            words += SHELLS
        verbs += f"\t{name}) words='{' '.join(words)}' ;;\n"
    return _BASH.format(
        takes=" | ".join(takes),
        start=" ".join([*_shown(), *_long(options.GLOBALS)]),
        verbs=verbs,
        containers=" | ".join(_of_containers()),
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_option(condition: str, option: options.Option) -> str:
    name, short, kind, text = option
    words = ["complete -c pyrunc", f"-n {_quoted(condition)}", f"-l {name}"]
    words += [f"-s {short}"] if short else []
    words += ["-r"] if kind != "switch" else []
    return " ".join([*words, f"-d {_quoted(text)}"]) + "\n"


def _fish() -> Iterator[str]:
    first = "__fish_use_subcommand"
    yield "complete -c pyrunc -f\n"
    for option in options.GLOBALS:
        if option[3]:
            yield _fish_option(first, option)
    for name in _shown():
        command = options.COMMANDS[name]
        yield f"complete -c pyrunc -n {first} -a {name} -d {_quoted(command.summary)}\n"
        for option in command.options:
            if option[3]:
                yield _fish_option(f"__fish_seen_subcommand_from {name}", option)
    seen = _quoted(f"__fish_seen_subcommand_from {' '.join(_of_containers())}")
    yield f"complete -c pyrunc -n {seen} -a '(pyrunc list --quiet 2>/dev/null)'\n"


def script(shell: str) -> str:
    """Return the text for `source <(pyrunc completion bash)`. Raise UsageError if the shell is not supported."""
    if shell == "bash":
        return _bash()
    if shell == "zsh":
        return _ZSH + _bash()
    if shell == "fish":
        return "".join(_fish())
    raise UsageError(f"no completion for '{shell}'", hint=f"give one of {', '.join(SHELLS)}")


def installed(shell: str) -> str:
    """Return the text of the file that the shell finds by itself. Raise UsageError if the shell is not supported."""
    text = script(shell)
    return _ZSH_INSTALLED.format(text) if shell == "zsh" else text
