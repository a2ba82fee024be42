"""``python -m derivations``: print the walk-throughs, write or check the closed forms."""

import argparse
import sys
from pathlib import Path

import derivations
from rotsim.files import write_atomically
from rotsim.show.streams import prepare, shows


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m derivations", description=__doc__)
    known = ", ".join(derivations.DERIVATIONS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which derivations to print, of {known}; default all")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--markdown", type=Path, metavar="FILE", help="write Markdown with LaTeX equations")
    action.add_argument("--write", action="store_true", help="regenerate the closed forms, in Python and JavaScript")
    action.add_argument("--check", action="store_true", help="prove the claims and compare the generated file")
    options = parser.parse_args(arguments)
    if options.write:
        return _write()
    if options.check:
        return _check()
    names = options.names or list(derivations.DERIVATIONS)
    unknown = [name for name in names if name not in derivations.DERIVATIONS]
    if unknown:
        parser.error(f"no derivation is called {unknown[0]!r}; choose from {known}")
    prepare()
    style = "markdown" if options.markdown else "text" if shows("λ√─") else "ascii"
    text = "\n".join(derivations.render(name, style) for name in names)
    if options.markdown:
        write_atomically(options.markdown, text)
        print(f"wrote {options.markdown}")
    else:
        print(text)
    return 0


def _write() -> int:
    for file, language in derivations.LANGUAGES.items():
        path = language.committed_path()
        write_atomically(path, derivations.closed_forms(file))
        print(f"wrote {path}")
    return 0


def _check() -> int:
    results = derivations.check()
    for statement, holds in results:
        print(f"{'ok    ' if holds else 'FAILED'}  {statement}")
    failed = [statement for statement, holds in results if not holds]
    if not failed:
        print(f"all {len(results)} statements hold")
        return 0
    print(f"{len(failed)} of {len(results)} statements FAILED, first: {failed[0]}", file=sys.stderr)
    for (_, same), language in zip(results[-len(derivations.LANGUAGES) :], derivations.LANGUAGES.values(), strict=True):
        if not same:
            path = language.committed_path()
            print(f"{path} differs from what is generated: run `python -m derivations --write`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
