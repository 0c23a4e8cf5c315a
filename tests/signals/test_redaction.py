"""What leaves when addresses and users are not to be told: nothing that names them, and yet two remain two."""

from dataclasses import replace

import pytest

from build import backend, connection, settled, sight, tcp, title
from pgsonar.config.schema import Redaction as Settings
from pgsonar.config.schema import Telemetry
from pgsonar.episodes.tracker import EpisodeTracker
from pgsonar.model import (
    SECOND,
    ClientProcess,
    Endpoint,
    Finding,
    Moment,
    Pool,
    Pooler,
    PoolerClient,
    PoolerEnds,
    PoolerReading,
    Pooling,
    Severity,
    Slots,
    TcpState,
    Via,
)
from pgsonar.pipeline.reporting import Reporter
from pgsonar.signals.advice import next_step
from pgsonar.signals.identity import Identity
from pgsonar.signals.metrics import server_rows
from pgsonar.signals.redaction import Redaction
from pgsonar.signals.rows import MetricRow, Point
from pgsonar.signals.server_metrics import ServerReading
from pgsonar.tracking.earlier import EarlierRun

NOW = Moment(1_000 * SECOND + 3600 * SECOND, 1_700_000_000 * SECOND)
KEY = "a key of sixteen or more"
MODES = {mode: Redaction(Settings(addresses=mode, users=mode, key=KEY)) for mode in ("keep", "redact", "hash")}
SECRETS = ("alice", "bob", "10.0.0.7", "10.0.0.8", "fd00::7", "carol", "192.0.2.9")


def leaking():
    """Leaks of every kind that names a client, by two users at three addresses."""
    gone = connection(tcp(1, TcpState.CLOSE_WAIT, address="fd00::7", rx=1))
    waits = connection(tcp(2, inode=0))
    through = connection(tcp(3))
    through.client = ClientProcess(7, 0, "python3", user="carol", dialled=Endpoint("192.0.2.9", 5432))
    pooled = backend(title("idle in transaction", user="bob"), pid=4, bound=connection(tcp(4)))
    pooled.via = Via("pgbouncer:6432", PoolerClient("p", None, "bob", "shop", "active", "web", "10.0.0.8", 5, None, 0))
    return sight(
        [
            backend(title("idle in transaction", user="alice"), pid=1, bound=through),
            backend(title("SELECT", user="alice", host="fd00::7"), pid=2, bound=gone),
            backend(title("authentication", user="bob", host="10.0.0.8"), pid=3),
            pooled,
        ],
        [gone, waits, through, connection(tcp(0, TcpState.LISTEN, rx=1))],
        at=NOW.at,
        refused=1,  # who holds slots is named
    )


def sent(mode, seen):
    """Everything that leaves for a server in one tick, as text."""
    batches = []

    class Outlet:
        def export(self, batch):
            batches.append(batch)

    outlets = {signal: [Outlet()] for signal in ("metrics", "logs", "traces")}
    identity = Identity(host="h", host_id=None, version="1", extra={})
    reporter = Reporter(outlets, identity, 0, Telemetry(redaction=Settings(addresses=mode, users=mode, key=KEY)))
    numbers = iter(range(1, 1000))
    tracker = EpisodeTracker(lambda bits: next(numbers), EarlierRun())
    findings = settled(seen)
    clients = {b.pid: b.client for b in seen.backends}
    findings = [reporter.redaction.finding(replace(f, client=clients.get(f.pid))) for f in findings]
    looked_at = {seen.server.id: (seen.server, Slots(seen.ledger.used, seen.server.limits.ceiling))}
    reporter.tell(tracker.update(findings, looked_at, NOW))
    reporter.tell(tracker.end_all("agent_stopped", NOW))
    reading = ServerReading(seen, {"10.0.0.7": 1}, {"fd00::7": 1}, None, 0, reporter.names("s1"))
    limit = MetricRow("m", "gauge", "1", "", [Point({"user.name": "alice"}, 1, 0, 0)])
    return repr([batches, reporter.redaction.rows([limit, *server_rows(reading, 0, NOW)])])


@pytest.mark.parametrize("mode", ["redact", "hash"])
def test_nothing_that_leaves_names_a_client(mode):
    told = sent(mode, leaking())

    assert [secret for secret in SECRETS if secret in told] == []
    assert "idle_in_transaction" in told
    assert "orphaned_backend" in told
    assert "auth_stuck" in told


def test_as_it_is_everything_is_told():
    told = sent("keep", leaking())
    assert all(secret in told for secret in ("alice", "bob", "10.0.0.7", "10.0.0.8", "fd00::7"))


@pytest.mark.parametrize("mode", ["redact", "hash"])
def test_two_clients_remain_two_and_one_remains_one(mode):
    redaction = MODES[mode]
    found = settled(leaking())
    told = [redaction.finding(f) for f in found]

    assert len({(f.kind, f.identity) for f in told}) == len({(f.kind, f.identity) for f in found})
    assert [redaction.finding(f) for f in found] == told


def test_a_hash_is_the_same_on_every_host_of_one_key_and_on_no_other():
    (one,) = [f for f in _stuck() if f.address == "10.0.0.8"]
    other = Redaction(Settings(addresses="hash", users="hash", key=KEY + "!"))

    assert MODES["hash"].finding(one) == Redaction(Settings(addresses="hash", users="hash", key=KEY)).finding(one)
    assert MODES["hash"].finding(one).address != other.finding(one).address


def _stuck():
    return [f for f in settled(leaking()) if f.kind == "auth_stuck"]


def test_one_of_the_two_may_be_kept():
    (one,) = _stuck()
    kept = Redaction(Settings(addresses="redact")).finding(one)

    assert (kept.user, kept.address, kept.identity) == ("bob", "address~1", "address~1")


def test_what_names_nobody_stays():
    local = backend(title("idle in transaction", host="[local]", user="alice"))
    (found,) = (f for f in settled(sight([local], at=NOW.at)) if f.kind == "idle_in_transaction")
    assert MODES["redact"].finding(found).identity.endswith("@[local]")


def test_pools_are_named_by_their_users_too():
    pool = Pool("shop", "alice", 1, 0, 1, 0, 0, 0.0, "transaction", 5)
    reading = PoolerReading(
        at=0, endpoint=Endpoint("localhost", 6432), version="1.18", pools=(pool,), clients=(), servers=()
    )
    pooling = Pooling(Pooler("p", (1,), 1, 6432, "h"), [], PoolerEnds({}), reading)

    assert "alice" not in repr(MODES["hash"].pooling(pooling))
    assert MODES["keep"].pooling(pooling) is pooling


def test_a_superusers_session_is_protected_whatever_it_is_called():
    owner = backend(title("idle in transaction", user="postgres"))
    (found,) = (f for f in settled(sight([owner], at=NOW.at)) if f.kind == "idle_in_transaction")
    step = next_step(sight([], at=NOW.at).server, 1, found.kind, MODES["redact"].finding(found))

    assert "only looks" in step.effect
    assert "terminate" not in step.command


def test_what_pgbouncer_adds_to_an_application_name_is_taken_out():
    pooled = leaking().backends[3]
    pooled.via = pooled.via._replace(client=pooled.via.client._replace(application="web - 10.0.0.8:40112"))
    (found,) = (f for f in settled(sight([pooled], at=NOW.at)) if f.kind == "idle_in_transaction")
    told = MODES["redact"].finding(found)

    assert told.evidence["postgresql.application_name"].startswith("web - address~")
    assert "10.0.0.8" not in repr(told)


@pytest.mark.parametrize(
    ("identity", "key", "name"),
    [
        ("role alice", "pgsonar.limit.role", "alice"),
        ("10.0.0.0/24", "pgsonar.network.subnet", "10.0.0.0/24"),
        ("10.0.0.9:6432", "pgsonar.pooler", "10.0.0.9:6432"),
    ],
)
def test_what_is_no_client_but_named_by_one_is_hidden_too(identity, key, name):
    user = "alice" if "alice" in identity else None
    found = Finding(
        kind="x", server="s", identity=identity, onset=0, severity=Severity.HIGH, user=user, evidence={key: name}
    )
    told = MODES["hash"].finding(found)

    assert [secret for secret in ("alice", "10.0.0") if secret in f"{told.identity} {told.evidence}"] == []
