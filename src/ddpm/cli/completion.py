"""`ddpm --completion bash|zsh|fish`: a script that completes commands, names, options and values.

The options are those that tyro knows of each command; where a run or a file is asked for, the
shell completes paths. The script is plain shell: no Python is started while one types.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import io
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from ddpm.cli.figure import options_of
from ddpm.cli.reproduce import TABLES
from ddpm.cli.train import SHORT
from ddpm.errors import check
from ddpm.figures.named import FIGURES
from ddpm.pretrained import pretrained
from ddpm.registry import names

SHELLS = ("bash", "zsh", "fish")
OF_PRESETS = ("train", "info")  # commands whose first word may be a preset
WITHOUT = ("demo", "models", "ui", "train")  # and those whose first word is no model


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command.

    Args:
        flags: as they are typed.
        help: in one line.
        choices: all of its values, where they can be listed.
    """

    flags: tuple[str, ...]
    help: str = ""
    choices: tuple[str, ...] = ()


JSON = Option(("--json",), "one JSON document on stdout")
HELP = Option(("-h", "--help"), "the options")


def completion(
    arguments: Sequence[str], commands: Mapping[str, str], modules: Mapping[str, str]
) -> str:
    """The script for a shell.

    Args:
        arguments: the name of the shell.
        commands: name -> what it does.
        modules: of commands with other names than theirs.

    Raises:
        DdpmError: there is none for it.
    """
    shell = arguments[0] if arguments else "none"
    check(
        len(arguments) == 1 and shell in SHELLS,
        f"--completion takes a shell ({', '.join(SHELLS)}), got {' '.join(arguments) or shell}",
    )
    found = {name: options(name, modules.get(name, name)) for name in commands}
    return fish(commands, found) if shell == "fish" else bash(shell, found)


def options(command: str, module: str) -> list[Option]:
    """Of a command; of `figure` and `reproduce` those of all that can be drawn or measured."""
    found: dict[tuple[str, ...], Option] = {}
    for kind in classes(command, module):
        for option in known_to_tyro(kind):
            flags = tuple(flag for flag in option["flags"] if flag not in HELP.flags)
            if flags:
                words = " ".join(option["description"].split()).removesuffix(" (default: None)")
                choices = tuple(x for x in option.get("choices", ()) if x != "None")
                found.setdefault(flags, Option(flags, words, choices))
    if command in OF_PRESETS:
        found |= {
            (short,): Option((short,), f"short for --{full}") for full, short in SHORT.items()
        }
    asks = [Option(("--preset",), "the preset, where a run has its name too")] * (command == "info")
    return [*found.values(), *asks, JSON, HELP]


def known_to_tyro(kind: Any) -> list[dict[str, Any]]:
    """The options of a class, from the table in tyro's own script."""
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.cli(kind, prog="ddpm", args=["--tyro-print-completion", "bash"])
    (table,) = re.findall(r"^COMPLETION_SPEC = (.*)$", script.getvalue(), re.M)
    options: list[dict[str, Any]] = ast.literal_eval(table)["options"]
    return options


def classes(command: str, module: str) -> list[Any]:
    """What tyro fills for a command."""
    if command == "figure":
        return [options_of(kind) for kind in FIGURES.values()]
    if command == "reproduce":
        modules = [importlib.import_module(f"ddpm.cli.reproduce_{name}") for name in TABLES]
        return [
            getattr(module, name.capitalize()) for module, name in zip(modules, TABLES, strict=True)
        ]
    if command == "info":
        return [importlib.import_module("ddpm.cli.run_cost").Info]
    kind = getattr(importlib.import_module(f"ddpm.cli.{module}"), command.capitalize(), None)
    return [] if kind is None else [kind]


def first_words(command: str) -> list[str]:
    """Names that may stand behind a command, besides paths."""
    if command in ("figure", "reproduce"):
        return [*(FIGURES if command == "figure" else TABLES)]
    presets = names("preset") if command in OF_PRESETS else []
    return [*presets, *({} if command in WITHOUT else pretrained())]


def bash(shell: str, commands: Mapping[str, list[Option]]) -> str:
    """For bash, and for zsh through its bashcompinit."""
    flags, values, words = [], [], []
    for command, found in commands.items():
        listed = " ".join(flag for option in found for flag in option.flags)
        flags.append(f"    {command}) words={shlex.quote(listed)} ;;")
        words.append(f"    {command}) words={shlex.quote(' '.join(first_words(command)))} ;;")
        values += [
            f'    "{command} {flag}") words={shlex.quote(" ".join(option.choices))} ;;'
            for option in found
            if option.choices
            for flag in option.flags
        ]
    first = " ".join([*commands, "--help", "--version", "--import", "--completion"])
    head = "autoload -U +X bashcompinit && bashcompinit\n" * (shell == "zsh")
    return f"""{head}_ddpm() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[1]}}" words=""
  case "$command $prev" in
{chr(10).join(values)}
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    words={shlex.quote(first)}
  elif [ -z "$words" ] && [ "$command" = --completion ]; then
    words={shlex.quote(" ".join(SHELLS))}
  elif [ -z "$words" ] && [ "${{cur#-}}" != "$cur" ]; then
    case "$command" in
{chr(10).join(flags)}
    esac
  elif [ -z "$words" ] && [ "$COMP_CWORD" -eq 2 ]; then
    case "$command" in
{chr(10).join(words)}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [ "$COMP_CWORD" -eq 2 ] && [ "$command" != --completion ]; then
    COMPREPLY+=($(compgen -f -- "$cur"))
  fi
}}
complete -o default -F _ddpm ddpm"""


def fish(commands: Mapping[str, str], found: Mapping[str, list[Option]]) -> str:
    """For fish, with a word on each."""
    lines = ["complete -c ddpm -e"]
    for command, what in commands.items():
        lines.append(f"complete -c ddpm -n __fish_use_subcommand -a {command} -d {quoted(what)}")
    for flag in ("help", "version"):
        lines.append(f"complete -c ddpm -n __fish_use_subcommand -l {flag}")
    lines.append(
        f"complete -c ddpm -n __fish_use_subcommand -l completion -xa '{' '.join(SHELLS)}'"
    )
    for command in commands:
        here = f"complete -c ddpm -n '__fish_seen_subcommand_from {command}'"
        known = first_words(command)
        lines += [f"{here} -a {quoted(' '.join(known))}"] * bool(known)
        for option in found[command]:
            typed = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in option.flags
            )
            takes = f" -xa {quoted(' '.join(option.choices))}" if option.choices else ""
            lines.append(f"{here} {typed}{takes} -d {quoted(option.help)}")
    return "\n".join(lines)


def quoted(words: str) -> str:
    """For fish, in whose quotes only these two need a backslash."""
    escaped = words.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
