"""Run the parts of ``make hostile`` and print a line for each: ``python -m tests.hostile [part …]``.

A part is a module with a function ``run`` that returns what is wrong, one sentence each.
"""

import argparse
import importlib
import sys
import time

PARTS = ("api", "files")
"""Modules of this package; a further part is one module and one entry here."""


def main() -> None:
    """Run the parts that are named, or all of them, and exit with 1 if one has found anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="part", help=", ".join(PARTS))
    failed = False
    for part in parser.parse_args().parts or PARTS:
        started = time.monotonic()
        found = importlib.import_module(f"tests.hostile.{part}").run()
        failed |= bool(found)
        print(f"{part}: {len(found)} findings in {time.monotonic() - started:.0f} s", flush=True)
        for one in found:
            print(f"  {one}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
