"""Broken variants of the real code, each caught by the simulator: the proof of the prover.

`python3 -m tests.simulation.variants` prints the table from the record (variants.json): what is
broken, which invariant notices, and how many seeds that takes (the median over several first
seeds). `--search [NAME...]` searches anew; `--replay` runs the recorded seed of each, which must be
caught, and the same without the break, which must be clean (test_variants.py: one an invariant).
"""

import argparse
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.simulation import (
    broken_members, broken_node, broken_raft, broken_snapshots, broken_work)
from tests.simulation.breaking import Caught, Variant
from tests.simulation.cores import all_cores

RECORD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "variants.json")
VARIANTS = {variant.name: variant
            for variant in [*broken_raft.VARIANTS, *broken_members.VARIANTS,
                            *broken_node.VARIANTS, *broken_snapshots.VARIANTS,
                            *broken_work.VARIANTS]}
# Searched by name only: no seed is known yet that shows them.
UNCAUGHT = {variant.name: variant
            for variant in [*broken_raft.UNCAUGHT, *broken_node.UNCAUGHT]}
_SEARCHED = VARIANTS | UNCAUGHT
_START_EVERY = 100_000          # apart are the first seeds of two searches
_SHORTER_MS = (2_000, 4_000, 6_000, 8_000)
_PROGRESS_S = 5.0


def read_record() -> dict[str, dict]:
    """By variant: seed, nodes, run_ms, caught_by, seeds (needed, by first seed), median."""
    if not os.path.exists(RECORD):
        return {}
    with open(RECORD, encoding="utf-8") as file:
        return json.load(file)


def write_record(record: dict[str, dict]) -> None:
    """In the order of the variants; those that are no more are dropped."""
    ordered = {name: record[name] for name in _SEARCHED if name in record}
    with open(RECORD + ".new", "w", encoding="utf-8") as file:
        json.dump(ordered, file, indent=1)
        file.write("\n")
    os.replace(RECORD + ".new", RECORD)


def search(variant: Variant, seeds_max: int, starts: int) -> dict | None:
    """A record of this variant; None where a search found nothing in `seeds_max` seeds."""
    needed, catches = [], []
    for start in range(1, starts * _START_EVERY, _START_EVERY):
        told = time.monotonic()
        for seed in range(start, start + seeds_max):
            caught = variant.run(seed, variant.run_ms)
            if caught is not None:
                break
            if time.monotonic() - told >= _PROGRESS_S:
                told = time.monotonic()
                print(f"  {variant.name}: {seed - start + 1} seeds from {start} on", flush=True)
        else:
            return None
        needed.append(seed - start + 1)
        catches.append((seed, caught))
    # The one that is noticed first is the quickest to replay.
    seed, caught = min(catches, key=lambda catch: catch[1].at_ms)
    run_ms, by = _shortest(variant, seed, caught)
    if (false := variant.run(seed, run_ms, broken=False)) is not None:
        raise AssertionError(f"seed {seed}, {variant.nodes} nodes, {run_ms} ms is not clean "
                             f"without the variant {variant.name!r}: {false.text}")
    return {"seed": seed, "nodes": variant.nodes, "run_ms": run_ms, "caught_by": by,
            "seeds": needed, "median": statistics.median_low(needed)}


def _shortest(variant: Variant, seed: int, caught) -> tuple[int, str]:
    """How long faults must go on, and what notices then."""
    if caught.at_ms <= variant.run_ms:
        return caught.at_ms, caught.by      # the same course, up to the same event
    for run_ms in _SHORTER_MS:
        if run_ms < variant.run_ms and (sooner := variant.run(seed, run_ms)) is not None:
            return run_ms, sooner.by
    return variant.run_ms, caught.by


def _search_all(names: list[str], seeds_max: int, starts: int) -> int:
    missed = []
    for name in names or VARIANTS:
        began = time.process_time()
        found = search(_SEARCHED[name], seeds_max, starts)
        record = read_record()
        record.pop(name, None)
        if found is None:
            missed.append(name)
            outcome = f"NOT caught in {seeds_max} seeds"
        else:
            record[name] = found
            outcome = f"{found['seeds']} seeds: {found['caught_by']}"
        write_record(record)
        print(f"{name}: {outcome} ({time.process_time() - began:.0f} s)", flush=True)
    return 1 if missed else 0


def replay(name: str, broken: bool) -> Caught | None:
    """The recorded run of that variant, with or without the break."""
    found = read_record()[name]
    return VARIANTS[name].run(found["seed"], found["run_ms"], broken)


def replay_all() -> int:
    """Every recorded run, both ways; exit 1 where one ended otherwise than recorded."""
    record = read_record()
    wrong = 0
    with all_cores() as pool:
        runs = [(name, broken, pool.submit(replay, name, broken))
                for name in record for broken in (True, False)]
        for name, broken, run in runs:
            caught = run.result()
            if (caught.by if caught else None) != (record[name]["caught_by"] if broken else None):
                wrong += 1
                print(f"{name}{'' if broken else ' (without the break)'}: "
                      f"{caught or 'nothing'} was caught")
    print(f"{len(runs)} runs, {wrong} of them wrong")
    return 1 if wrong else 0


def print_table() -> int:
    """The record as a table; exit 1 where a variant has none."""
    record = read_record()
    missing = 0
    for name, variant in _SEARCHED.items():
        found = record.get(name)
        missing += found is None and name in VARIANTS
        print(f"{name}\n    broken:  {variant.broken}")
        if variant.profile is not None or variant.limits:
            print(f"    where:   {_conditions(variant)}")
        if found is None:
            print("    caught:  NOT YET")
        else:
            print(f"    caught:  {found['caught_by']}")
            print(f"    seeds:   median {found['median']} of {found['seeds']}; replay: seed "
                  f"{found['seed']}, {found['nodes']} nodes, {found['run_ms']} ms")
    print(f"{len(VARIANTS) - missing} of {len(VARIANTS)} variants are caught; "
          f"{len(UNCAUGHT)} more are not: {', '.join(UNCAUGHT)}")
    return 1 if missing else 0


def _conditions(variant: Variant) -> str:
    words = []
    if variant.profile is not None:
        network, every_ms, kinds = variant.profile
        words = [f"{name.removesuffix('_ms')} {value}" for name, value in network.items()]
        words += [f"every {every_ms} ms one of {', '.join(kinds)}"]
    words += [f"{name} = {value}" for name, value in variant.limits.items()]
    return "; ".join(words)


def main() -> int:
    """Exit 0 where every variant that was asked for is caught."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.simulation.variants",
                                     description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("--search", nargs="*", metavar="NAME", help="search anew: these, or all")
    parser.add_argument("--replay", action="store_true", help="the recorded seeds, both ways")
    parser.add_argument("--seeds", type=int, default=2_000, metavar="COUNT", help="give up after")
    parser.add_argument("--starts", type=int, default=3, metavar="COUNT", help="searches each")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay_all()
    if arguments.search is None:
        return print_table()
    unknown = [name for name in arguments.search if name not in _SEARCHED]
    if unknown:
        parser.error(f"no variant is called {', '.join(map(repr, unknown))}")
    return _search_all(arguments.search, arguments.seeds, arguments.starts)


if __name__ == "__main__":
    sys.exit(main())
