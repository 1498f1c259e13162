"""ES modules to the one script of a page: its policy allows a single script, by the script's hash.

This knows the part of the language that our modules use and refuses the rest: imports by name from files
beside the module, exports in front of a declaration, and one meaning for each name of a page. Comments for
the type checker stay behind. It stands alone, because the wheel is built with nothing else installed.
"""

from __future__ import annotations

import re
from pathlib import Path

PAGES = ("report", "comparison")
MODULES = Path(__file__).parent / "assets" / "js"

_TYPES = re.compile(r"^[ \t]*/\*\*(?:(?!\*/).)*\*/\n", re.M | re.S)
_IMPORT = re.compile(r'^import \{([^{}]*)\} from "\./([\w-]+\.js)";\n', re.M)
_DECLARED = re.compile(r"^(export )?(?:async )?(?:function|class|const|let) (\w+)", re.M)
_REFUSED = re.compile(r"^(?:import|export|var|(?:const|let) *[\[{]).*|.*\bimport(?: *\(|\.meta).*", re.M)


def bundle(entry: Path) -> str:
    """Return the module `entry` and all that it imports as one script, each after what it needs.

    Raises ValueError, with the file and the line, for what would not mean the same in one script.
    """
    texts: dict[Path, str] = {}
    exports: dict[Path, set[str]] = {}
    names: dict[str, Path] = {}

    def visit(path: Path, importers: tuple[Path, ...]) -> None:
        if path in importers:
            raise ValueError(f"{path.name} imports itself through {importers[-1].name}")
        if path in texts:
            return
        text = _TYPES.sub("", path.read_text(encoding="utf-8"))
        for listed, file in _IMPORT.findall(text):
            visit(path.parent / file, (*importers, path))
            for name in filter(None, map(str.strip, listed.split(","))):
                if name not in exports[path.parent / file]:
                    raise ValueError(f"{path.name} imports {name!r}, and {file} does not export it")
        text = _IMPORT.sub("", text)
        declared = _DECLARED.findall(text)
        for _, name in declared:
            if name in names:
                raise ValueError(f"{path.name} and {names[name].name} both have a {name!r}; rename one")
            names[name] = path
        exports[path] = {name for exported, name in declared if exported}
        text = _DECLARED.sub(lambda found: found[0].removeprefix("export "), text)
        if left := _REFUSED.search(text):
            raise ValueError(f"{path.name}: {left[0].strip()!r} cannot be bundled")
        texts[path] = text.replace("// @ts-check\n", "").strip()

    visit(entry, ())
    return '"use strict";\n(() => {\n' + "\n\n".join(texts.values()) + "\n})();\n"
