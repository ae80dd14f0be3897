"""`python3 -m tests.scenarios [--rewrite] [NAME ...]`: compare the scenarios, or write them anew.

What --rewrite changed is shown by `git diff`, and must be read: the trace is right only because
somebody compared it with the paper.
"""

import argparse
import difflib
import sys

from tests.scenarios.interpreter import paths, run


def main() -> int:
    """Exit status 0 where all traces are as written (or were written), and every assertion held."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.scenarios", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rewrite", action="store_true", help="write the traces of now")
    parser.add_argument("names", nargs="*", metavar="NAME", help="figure_7, ...; default: all")
    arguments = parser.parse_args()
    chosen = [path for path in paths() if not arguments.names or path.stem in arguments.names]
    unknown = set(arguments.names) - {path.stem for path in chosen}
    if unknown:
        parser.error(f"no scenario of that name: {' '.join(sorted(unknown))}")
    differ = broken = 0
    for path in chosen:
        old = path.read_text(encoding="utf-8")
        new, sound = run(old)
        if not sound:
            broken += 1
            print(f"broken: {path.name}: {new.splitlines()[-1].strip()}; not written")
        elif new != old and arguments.rewrite:
            path.write_text(new, encoding="utf-8")
            print(f"rewritten: {path.name}")
        if new != old and not (sound and arguments.rewrite):
            sys.stdout.writelines(difflib.unified_diff(
                old.splitlines(True), new.splitlines(True), path.name, "now"))
        differ += sound and new != old
    done = "rewritten" if arguments.rewrite else "different"
    print(f"{len(chosen)} scenarios, {differ} {done}, {broken} with a broken assertion")
    return 1 if broken or differ and not arguments.rewrite else 0


if __name__ == "__main__":
    sys.exit(main())
