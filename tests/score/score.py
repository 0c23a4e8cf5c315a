"""Precision, recall and delay of every detector, on plays that a seed draws: `make score SEED=1 N=10`.

Each seed draws a major, which leaks are played and when, and which near misses run beside them. What opens is held
against what was played: recall is the share of plays that were named, precision the share of what was told that was
played. Delay counts from the threshold, or from when the kernel or a console could first tell. Exit code 1: something
was missed, told for nothing, or told too late.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("agent", "tests", "tests/live")]

from installation import installed, watch  # noqa: E402
from playing import Agent  # noqa: E402 - found by the lines above
from plays import CONFIGURATION, PLAYS, TWINS, Expected  # noqa: E402

MAJORS = (13, 15, 16, 18)
# They stop the whole server or cut every client off, so they are played when nothing else is.
ALONE = ("peers_that_fall_silent", "network_cut", "slots_run_out", "postmaster_that_does_not_accept")
TOGETHER = tuple(name for name in PLAYS if name not in ALONE)
TO_THE_END = 3  # every so many seeds a leak goes on until clients are refused
JITTER = 5.0  # seconds within which the plays of a seed begin
SLACK = 4.0  # seconds a play goes on after it should have been told


@dataclass
class Tally:
    """Of one kind."""

    played: int = 0
    named: int = 0
    told: int = 0
    false: int = 0
    delays: list[float] = field(default_factory=list)


@dataclass
class Result:
    """Of one seed."""

    tallies: dict[str, Tally]
    problems: list[str]
    lead: float | None = None  # seconds between the first word of a leak and the first client that it had refused


def one_seed(seed: int) -> Result:
    """Plays what the seed draws."""
    chance = random.Random(seed)
    major = chance.choice(MAJORS)
    names = chance.sample(TOGETHER, chance.randint(6, 12))
    twins = chance.sample(sorted(TWINS), chance.randint(2, 5))
    alone = chance.choice([*ALONE, None])
    begins = {name: chance.uniform(0, JITTER) for name in names}
    say(f"seed {seed}: PostgreSQL {major}, {len(names)} leaks, {len(twins)} near misses, then {alone or 'nothing'}")
    with tempfile.TemporaryDirectory() as folder, installed(major) as world:
        agent = watch(world, Path(folder))
        try:
            expected = together(world, begins, twins)
            if alone is not None:
                expected += together(world, {alone: 0.0}, [])
            refused_at = None
            if seed % TO_THE_END == 0:
                leak, refused_at = leak_until_refused(world)
                expected += leak
            time.sleep(2)
        finally:
            agent.stop()
        result = judge(expected, agent, seed)
        if refused_at is not None:
            result.lead = refused_at - first_word(agent, expected[-1])
        return result


def leak_until_refused(world) -> tuple[list[Expected], float]:
    """Leaves transactions open, ten a second, until a client is refused; what is expected, and when that was."""
    began, clients = time.time(), []
    try:
        while True:
            clients.append(world.client("app"))
            clients[-1].execute("begin")
            time.sleep(0.1)
    except ConnectionRefusedError:
        refused_at = time.time()
    time.sleep(1)
    ports = {client.port for client in clients}
    for client in clients:
        client.close()
    leaks = Expected("idle_in_transaction", began, ports=ports, onset=False)
    return [Expected("pool_exhausted", refused_at - 10, onset=False), leaks], refused_at


def first_word(agent: Agent, leak: Expected) -> float:
    times = [int(e["timeUnixNano"]) / 1e9 for e in agent.events() if kind_of(e) == leak.kind and is_about(e, leak)]
    return min(times, default=float("inf"))


def together(world, begins: dict[str, float], twins: list[str]) -> list[Expected]:
    """Plays all of them, each in a thread of its own; what was expected."""
    expected: list[Expected] = []
    failures: list[BaseException] = []

    def play(name: str, begin: float) -> None:
        try:
            time.sleep(begin)
            with PLAYS[name](world) as told:
                expected.extend(told)
                until = max(one.began + one.after + one.late for one in told) + SLACK
                time.sleep(max(0.0, until - time.time()))
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    def miss(name: str) -> None:
        try:
            for _ in range(2):
                TWINS[name][1](world, name, 7.0)  # a long query is one from eight seconds on
        except BaseException as error:  # noqa: BLE001 - the same
            failures.append(error)

    threads = [threading.Thread(target=play, args=item) for item in begins.items()]
    threads += [threading.Thread(target=miss, args=(name,)) for name in twins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return expected


def judge(expected: list[Expected], agent: Agent, seed: int) -> Result:
    """Holds what was told against what was played."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    problems = []
    events = agent.events()
    for one in expected:
        tally = tallies[one.kind]
        tally.played += 1
        naming = [event for event in events if kind_of(event) == one.kind and is_about(event, one)]
        if not naming:
            problems.append(f"seed {seed}: missed {one.kind} of {sorted(one.pids)} {sorted(one.ports)}")
            continue
        tally.named += 1
        first = min(int(event["timeUnixNano"]) / 1e9 for event in naming)
        tally.delays.append(first - (one.began + one.after + one.late))
    for event in events:
        if not event["eventName"].endswith("opened"):
            continue
        kind = kind_of(event)
        tallies[kind].told += 1
        if not any(kind in (one.kind, *one.also) and is_about(event, one) for one in expected):
            tallies[kind].false += 1
            problems.append(f"seed {seed}: told for nothing: {event['body']['stringValue']}")
    return Result(tallies, problems)


def kind_of(event) -> str:
    return event["attributes"]["pgsonar.leak.kind"]


def is_about(event, one: Expected) -> bool:
    """Whether it names a member, or, where a leak has none, came in its time."""
    if one.pids or one.ports:
        words = [member.split() for member in event["attributes"]["pgsonar.leak.member_list"]]
        pids, ports = {word[0] for word in words}, {word[2] for word in words}
        return bool(pids & set(map(str, one.pids)) or ports & set(map(str, one.ports)))
    return event["attributes"]["pgsonar.leak.onset"] / 1e9 > one.began - 5


def report(results: list[Result]) -> bool:
    """Prints the table; whether nothing was missed and nothing told for nothing."""
    sums: dict[str, Tally] = defaultdict(Tally)
    for result in results:
        for kind, tally in result.tallies.items():
            of = sums[kind]
            of.played, of.named = of.played + tally.played, of.named + tally.named
            of.told, of.false = of.told + tally.told, of.false + tally.false
            of.delays += tally.delays
    print(f"{'kind':<28} {'played':>6} {'recall':>7} {'told':>5} {'precision':>9} {'median':>7} {'worst':>7}")
    for kind in CONFIGURATION:
        tally = sums[kind]
        recall = f"{tally.named / tally.played:.3f}" if tally.played else "-"
        precision = f"{1 - tally.false / tally.told:.3f}" if tally.told else "-"
        median, worst = (f"{f(tally.delays):.1f} s" if tally.delays else "-" for f in (statistics.median, max))
        print(f"{kind:<28} {tally.played:>6} {recall:>7} {tally.told:>5} {precision:>9} {median:>7} {worst:>7}")
    delays = [delay for tally in sums.values() for delay in tally.delays]
    played, named = (sum(getattr(tally, name) for tally in sums.values()) for name in ("played", "named"))
    told, false = (sum(getattr(tally, name) for tally in sums.values()) for name in ("told", "false"))
    print(f"recall {named / played:.4f} of {played}, precision {1 - false / max(told, 1):.4f} of {told}")
    print(f"median delay {statistics.median(delays):.2f} s" if delays else "nothing was named")
    leads = [result.lead for result in results if result.lead is not None]
    if leads:
        print(f"named {statistics.median(leads):.1f} s before the first refusal, {min(leads):.1f} s at worst")
    for result in results:
        for problem in result.problems:
            print(problem)
    never = [kind for kind in CONFIGURATION if not sums[kind].played]
    if never:
        print(f"not drawn by these seeds: {', '.join(never)}")
    is_whole = not any(result.problems for result in results)
    return played > 0 and is_whole and all(lead > 0 for lead in leads)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Plays N seeds from SEED on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    arguments = parser.parse_args()
    results = []
    with contextlib.suppress(KeyboardInterrupt):
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            try:
                results.append(one_seed(seed))
            except Exception as error:  # noqa: BLE001 - the others are played all the same
                results.append(Result({}, [f"seed {seed}: could not be played: {type(error).__name__}: {error}"]))
            for problem in results[-1].problems:
                say(f"  {problem}")
    return 0 if results and report(results) else 1


if __name__ == "__main__":
    sys.exit(main())
