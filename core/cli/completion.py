"""``completion``: what bash, zsh and fish run when Tab is pressed.

The scripts know nothing themselves: they hand the words to ``stowage __complete``, which answers
with a line for each candidate (a tab before its meaning), or ``:files``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..config import Config
from ..errors import InvalidArgument, StowageError
from ..options import nearest
from .command import Command
from .completing import candidates
from .context import Context
from .flags import Flag, Parsed
from .live_names import LiveNames

_BASH = r"""# bash completion for stowage: source <(stowage completion bash)

_stowage() {
    local line=${COMP_LINE:0:COMP_POINT} current candidate cut= words=() found=()
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    # readline breaks words at : and =, and puts the answer behind the last of them
    [[ $current == *[:=]* ]] && cut=${current%"${current##*[:=]}"}
    mapfile -t found < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    COMPREPLY=()
    for candidate in "${found[@]}"; do
        if [[ $candidate == :files ]]; then
            compopt -o default 2>/dev/null
        else
            candidate=${candidate%%$'\t'*}
            COMPREPLY+=("${candidate#"$cut"}")
            [[ $candidate == *: ]] && compopt -o nospace 2>/dev/null
        fi
    done
}

complete -F _stowage stowage
"""

_ZSH = r"""#compdef stowage
# zsh completion for stowage: source <(stowage completion zsh), or a file _stowage in $fpath

_stowage() {
    local -a found described
    local line
    found=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in $found; do
        if [[ $line == :files ]]; then
            _files
        else
            line=${line//:/\\:}
            described+=("${line/$'\t'/:}")
        fi
    done
    (( $#described )) && _describe -V stowage described
}

if [[ $funcstack[1] == _stowage ]]; then
    _stowage "$@"
else
    compdef _stowage stowage
fi
"""

_FISH = r"""# fish completion for stowage: stowage completion fish | source

function __stowage_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end

complete -c stowage -f -a '(__stowage_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def _completion(context: Context, parsed: Parsed) -> None:
    shell = parsed.arguments[0]
    if shell not in SCRIPTS:
        raise InvalidArgument(
            f"there is no completion for {shell!r}{nearest(shell, SCRIPTS)}",
            resolution=f"known are {', '.join(SCRIPTS)}",
        )
    context.print(SCRIPTS[shell].rstrip("\n"))


def answer(words: Sequence[str], global_flags: Sequence[Flag], config: Config | None) -> None:
    """Write what may stand for the last of *words*; *config* says where names are read."""
    from pathlib import Path

    names = LiveNames(config.data_root if config else Path("/nonexistent"))
    try:
        for one in candidates(words, global_flags, names):
            sys.stdout.write(f"{one}\n")
    except (StowageError, OSError):  # nobody reads errors behind a Tab
        pass
    finally:
        names.close()


COMMANDS = {"completion": Command("bash|zsh|fish", _completion)}
