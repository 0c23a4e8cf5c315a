"""What each kind of leak says of itself, in one or a few sentences.

The rule: the first hundred characters stand alone (who, how many of how many slots, where); then since when, and what
happens next. Nothing is said that was not seen.
"""

from __future__ import annotations

from pgsonar.detectors.evidence import NOT_READING, PHASE, common_client
from pgsonar.model import Episode, Holder, Severity, Slots
from pgsonar.signals.words import count, of_slots

HOLDERS_TOLD = 3  # in a sentence; attributes name more


def whose(episode: Episode) -> str:
    """For a sentence of another's."""
    return f"of {episode.identity} " if episode.identity else ""


def _who(episode: Episode) -> str:
    """`checkout (app@10.0.0.7)`: the application where all members have one, and what they have in common."""
    names = {finding.evidence.get("postgresql.application_name") for finding in episode.findings}
    (name,) = names if len(names) == 1 else (None,)
    if name:
        return f"{name} ({episode.identity})"
    client = common_client(episode.findings)
    is_known = client is not None and not client.is_proxy
    return f"{episode.identity}, {client.label}," if client is not None and is_known else episode.identity


def _ceiling(episode: Episode) -> int | None:
    return episode.slots.ceiling if episode.slots is not None else None


def _oldest(episode: Episode) -> str:
    """`pid 4711, 10.4.1.7:40112`: where to look first."""
    member = episode.members[0]
    parts = [f"pid {member.pid}"] if member.pid is not None else []
    if member.address is not None:
        parts.append(f"{member.address}:{member.port}")
    return ", ".join(parts)


def _idle_in_transaction(episode: Episode, old: str) -> str:
    slots = of_slots(len(episode.members), _ceiling(episode))
    aborted = any(finding.evidence.get("pgsonar.leak.aborted") for finding in episode.findings)
    consequence = "The transaction has failed and only ROLLBACK ends it. " if aborted else ""
    return (
        f"{_who(episode)} leaves transactions open: {slots} of {episode.server.label}. Oldest idle {old} "
        f"({_oldest(episode)}). {consequence}Its locks and the vacuum horizon are held until it commits or ends."
    )


def _orphaned(episode: Episode, old: str) -> str:
    number = len(episode.members)
    runs = "runs on although its client is" if number == 1 else "run on although their client is"
    waiting = [f for f in episode.findings if f.evidence.get("pgsonar.leak.waits_for_lock")]
    forgotten = [f for f in episode.findings if f.evidence.get("pgsonar.pooler.has_forgotten")]
    sentence = (
        f"{count(number, 'query')} of {_who(episode).rstrip(',')} {runs} gone, oldest {old} ({_oldest(episode)}): "
        f"{of_slots(number, _ceiling(episode))} of {episode.server.label}. "
    )
    if forgotten:
        sentence += f"PgBouncer {forgotten[0].evidence['pgsonar.pooler']} has forgotten it and counts it no more. "
    if waiting:
        activity = waiting[0].evidence.get("postgresql.state", "statement")
        return sentence + f"One waits for a lock: when it gets it, its {activity} WILL EXECUTE."
    if episode.kind == "orphaned_backend_no_socket":
        return sentence + "The connection was reset: no socket is left, and pg_stat_activity still shows the client."
    return sentence + "The slot is held until the statement ends."


def _auth_stuck(episode: Episode, old: str) -> str:
    users = sorted({finding.user for finding in episode.findings if finding.user})
    seen = (
        "pg_stat_activity shows them as starting."
        if episode.server.lists_logins
        else ("pg_stat_activity cannot show them.")
    )
    reserve = " The superuser reserve is NOT protected from this." if episode.severity >= Severity.HIGH else ""
    slots = of_slots(len(episode.members), _ceiling(episode))
    delay = " The server has not read what they sent: the delay is its own." if _is_unread(episode) else ""
    return (
        f"{episode.server.label}: {slots} held by logins that never finish, all from {episode.identity} "
        f"({', '.join(users) or 'user unknown'}), oldest {old} ({_oldest(episode)}). {seen}{reserve}{delay}"
    )


def _is_unread(episode: Episode) -> bool:
    """Whether it is the server that keeps these clients waiting."""
    return all(finding.evidence.get(PHASE) == NOT_READING for finding in episode.findings)


def _prestartup_stuck(episode: Episode, old: str) -> str:
    number = len(episode.members)
    limit = episode.findings[0].evidence.get("pgsonar.child.limit")
    children = episode.findings[0].evidence["pgsonar.child.count"]
    near = " Near that limit NOBODY gets in, whatever is free." if episode.severity >= Severity.CRITICAL else ""
    it_is, waits = ("it is", "waits") if number == 1 else ("they are", "wait")
    said = f"connected and never said who {it_is}"
    if _is_unread(episode):
        said = f"{waits}: the server has not read what was sent (a name look-up, or no CPU)"
    return (
        f"{episode.server.label}: {count(number, 'client')} of {episode.identity} {said}, oldest {old} "
        f"({_oldest(episode)}). No slot is held, but one of the children "
        f"the server can have: {children} of {limit or 'an unknown number'}.{near}"
    )


def _pool_exhausted(episode: Episode, old: str) -> str:
    used, ceiling = episode.slots or Slots(0, None)
    finding = episode.findings[0]
    prefix = "pgsonar.slot.holder."
    holders = sorted(
        ((int(value), key.removeprefix(prefix)) for key, value in finding.evidence.items() if key.startswith(prefix)),
        reverse=True,
    )
    held = ", ".join(f"{number} {name}" for number, name in holders)
    if ceiling is not None and used >= ceiling:
        reserve = f" and {used - ceiling} reserved" if used > ceiling else ""
        full = f"{episode.server.label} is FULL for applications: {ceiling} of {ceiling} slots"
        return f"{full}{reserve} ({held}), for {old}.{_main_cause(episode)}"
    share = f" ({used / ceiling:.0%})" if ceiling else ""
    return (
        f"{episode.server.label} runs out of slots: {used} of {ceiling}{share} in use ({held}), for {old}."
        f"{_main_cause(episode)}"
    )


def _main_cause(episode: Episode) -> str:
    if episode.root is not None and episode.causes:
        return f" Main cause: {episode.causes[0]}."
    named = "; ".join(holder_text(holder) for holder in episode.findings[0].holders[:HOLDERS_TOLD])
    return f" Most are held by {named}." if named else ""


def holder_text(holder: Holder) -> str:
    """One who holds slots, for people: `app@10.0.0.7: 35 slots, 35 idle, 60 opened in the last minute, by python3`."""
    parts = [f"{holder.identity}: {count(holder.slots, 'slot')}"]
    parts += [f"{holder.idle} idle"] if holder.idle else []
    parts += [f"{holder.opened} opened in the last minute"] if holder.opened else []
    if holder.process is not None:
        parts.append(f"{'behind the proxy' if holder.process.is_proxy else 'by'} {holder.process.label}")
    return ", ".join(parts)


def _idle_leak(episode: Episode, old: str) -> str:
    told = episode.findings[0].evidence
    closed = f"{told['pgsonar.leak.closed']} closed" if told["pgsonar.leak.closed"] else "no closes"
    return (
        f"{_who(episode)} opens connections and never uses them again: {len(episode.members)} of its "
        f"{told['pgsonar.leak.connections']} on {episode.server.label} moved no byte for long "
        f"({_oldest(episode)}), {told['pgsonar.leak.growth_per_min']:+g}/min for {old}, {closed}. "
        f"Normally {told['pgsonar.leak.normal']}."
    )


def _half_open(episode: Episode, old: str) -> str:
    number = len(episode.members)
    what = episode.findings[0].evidence["pgsonar.evidence.unanswered"]
    return (
        f"{_who(episode).rstrip(',')} {'does' if number == 1 else 'do'} not answer any more: "
        f"{of_slots(number, _ceiling(episode))} of {episode.server.label} held for {old} ({_oldest(episode)}), {what}. "
        "pg_stat_activity shows nothing of it."
    )


def _network_path(episode: Episode, old: str) -> str:
    return (
        f"The path from {episode.server.label} to {episode.identity} is broken: "
        f"{count(len(episode.members), 'session')} fell silent within a minute, for {old} ({_oldest(episode)}). "
        "These are no leaks: their slots are held until the kernel gives up or the path is back."
    )


def _slow_reader(episode: Episode, old: str) -> str:
    queued = sum(int(finding.evidence["pgsonar.queue.send"]) for finding in episode.findings)
    return (
        f"{_who(episode)} takes no more of its result: {of_slots(len(episode.members), _ceiling(episode))} of "
        f"{episode.server.label}, {queued} bytes wait, none was taken for {old} ({_oldest(episode)}). "
        "Its kernel answers, so nothing ends this."
    )


def _unread_input(episode: Episode, old: str) -> str:
    return (
        f"{_who(episode)} has sent more while its statement still runs: {count(len(episode.members), 'session')} of "
        f"{episode.server.label} left unread for {old} ({_oldest(episode)})."
    )


def _client_socket_leak(episode: Episode, old: str) -> str:
    client = common_client(episode.findings)
    who = client.label if client is not None else episode.identity
    return (
        f"{who} keeps {count(len(episode.members), 'socket')} to {episode.server.label} that the server has closed, "
        f"the oldest for {old} ({_oldest(episode)}). They hold no slot there, and a descriptor each here."
    )


def _connection_thrash(episode: Episode, old: str) -> str:
    rate = episode.findings[0].evidence["pgsonar.connection.rate"]
    return (
        f"{episode.identity} opens a new connection to {episode.server.label} for each thing it does: {rate:.0f} a "
        f"second for {old}, each shorter than a second. A pooler would keep them."
    )


def _limit(episode: Episode, old: str) -> str:
    told = episode.findings[0].evidence
    refused = told.get("pgsonar.refused")
    if "pgsonar.limit.connections" not in told:
        return f"{episode.server.label} refuses clients of {episode.identity}: {refused} within a minute, for {old}."
    use = f"{told['pgsonar.limit.used']} of {told['pgsonar.limit.connections']}"
    refusals = f", {refused} refused within a minute" if refused else ""
    return (
        f"{episode.identity} of {episode.server.label} runs out of its own connections: {use} in use{refusals}, for "
        f"{old}. What is free on the server does not help it."
    )


def _pooler_waiting(episode: Episode, old: str) -> str:
    told = episode.findings[0].evidence
    mode = told["pgsonar.pool.mode"]
    return (
        f"{count(int(told['pgsonar.pool.waiting']), 'client')} of {episode.identity} wait for a server connection of "
        f"PgBouncer {episode.server.label}, the longest for {told['pgsonar.pool.max_wait']} s; "
        f"{told['pgsonar.pool.used']} of {told.get('pgsonar.pool.size', '?')} are in use ({mode} mode), for {old}."
    )


def _pooler_pinned(episode: Episode, old: str) -> str:
    told = episode.findings[0].evidence
    idle, unserved = len(episode.members), int(told["pgsonar.pool.unserved"])
    return (
        f"{count(idle, 'idle client')} of {episode.identity} hold server connections of PgBouncer "
        f"{episode.server.label} (session mode, {told['pgsonar.pool.size']} in all), the longest for {old}; "
        f"{count(unserved, 'client')} have none, and are not counted as waiting until they ask."
    )


def _forgotten_server(episode: Episode, old: str) -> str:
    return (
        f"PgBouncer {episode.identity} has forgotten {count(len(episode.members), 'session')} that "
        f"{episode.server.label} still runs, the oldest for {old} ({_oldest(episode)}): "
        f"{of_slots(len(episode.members), _ceiling(episode))} beyond its pool."
    )


def _long_query(episode: Episode, old: str) -> str:
    number = len(episode.members)
    return (
        f"{count(number, 'statement')} of {_who(episode)} {'runs' if number == 1 else 'run'} on {episode.server.label} "
        f"for {old} ({_oldest(episode)})."
    )


def _unaccounted(episode: Episode, old: str) -> str:
    told = episode.findings[0].evidence
    return (
        f"pg_stat_activity of {episode.server.label} counts {told['pgsonar.gap.database_sees']} and the server holds "
        f"{count(len(episode.members), 'slot')} more, for {old}: {told['pgsonar.gap.cause']} ({_oldest(episode)})."
    )


def _accept_queue(episode: Episode, old: str) -> str:
    finding = episode.findings[0]
    overflow = (
        " The queue is full and the kernel drops further clients."
        if (finding.evidence.get("pgsonar.leak.phase") == "overflow")
        else ""
    )
    waits = "waits" if len(episode.members) == 1 else "wait"
    return (
        f"{episode.server.label} does not accept connections: {count(len(episode.members), 'client')} {waits} in its "
        f"queue, the oldest for {old} ({_oldest(episode)}). They hold no slot and appear in no log.{overflow}"
    )


# By kind: the episode, and how old it is in words.
SENTENCES = {
    "idle_in_transaction": _idle_in_transaction,
    "idle_leak": _idle_leak,
    "half_open": _half_open,
    "network_path": _network_path,
    "slow_reader": _slow_reader,
    "backend_busy_unread_input": _unread_input,
    "client_socket_leak": _client_socket_leak,
    "connection_thrash": _connection_thrash,
    "role_or_database_limit": _limit,
    "pooler_waiting": _pooler_waiting,
    "pooler_pinned": _pooler_pinned,
    "pooler_forgotten_server": _forgotten_server,
    "long_query": _long_query,
    "unaccounted": _unaccounted,
    "orphaned_backend": _orphaned,
    "orphaned_backend_no_socket": _orphaned,
    "auth_stuck": _auth_stuck,
    "prestartup_stuck": _prestartup_stuck,
    "pool_exhausted": _pool_exhausted,
    "accept_queue": _accept_queue,
}
