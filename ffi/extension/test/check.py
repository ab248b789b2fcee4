#!/usr/bin/env python3
"""The files of installcheck, and a short comparison of random drops, on a server that nobody else needs.

usage: PG_CONFIG=… check.py [--drops 100]

Ends with 1 where a result differs. Nothing has to be installed, and nothing is.
"""

import argparse
import difflib
import pathlib
import subprocess
import sys

import differential
from throwaway import Server

HERE = pathlib.Path(__file__).parent.parent
FILES = ("setup", "drops", "names", "phase", "rights")


def run_files(server):
    """What pg_regress does. Returns how many differ."""
    server.session().run("CREATE DATABASE files")
    wrong = 0
    for file in FILES:
        with open(HERE / f"sql/{file}.sql", encoding="utf-8") as script:
            result = subprocess.run(
                [f"{server.bindir}/psql", "-X", "-a", "-q", f"host={server.directory} user=postgres dbname=files"],
                stdin=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
        expected = (HERE / f"expected/{file}.out").read_text(encoding="utf-8")
        lines = list(difflib.unified_diff(expected.splitlines(), result.splitlines(), "expected", file,
                                          lineterm=""))
        print(*lines, sep="\n", end="\n" if lines else "")
        wrong += bool(lines)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--drops", type=int, default=100)
    options = parser.parse_args()
    with Server() as server:
        wrong = run_files(server)
        wrong += differential.compare(server, options.drops, differential.any_seed())
    print(f"{server.version}: {len(FILES)} files, {options.drops} random drops: {wrong} findings")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
