"""What Prometheus scrapes and what VictoriaMetrics is sent over OTLP answer the same queries with the same values."""

import contextlib
import time

import pytest

from leaking import leak, server_with_users
from parts import needed
from pgsonar.demo.clients import WireClient
from playing import Agent
from ports import free_port
from running import Prometheus, VictoriaMetrics, asked, until

pytestmark = pytest.mark.backends
CLIENTS, LEAKS = 6, 2
REST = "receivers: [sockets], processors: [leaks]}"
QUERIES = (
    "sum by (pgsonar_slot_holder, server_port) (pgsonar_slot_used)",
    "sum by (pgsonar_limit_source, server_port) (pgsonar_slot_limit)",
    "sum by (server_port) (pgsonar_slot_utilization_ratio)",
    "sum by (network_connection_state, pgsonar_side) (pgsonar_connection_count)",
    "sum by (user_name, db_namespace, postgresql_state) (pgsonar_backend_count)",
    "sum by (pgsonar_leak_kind, pgsonar_leak_severity) (pgsonar_leak_open)",
    "sum by (pgsonar_leak_kind, pgsonar_leak_severity) (pgsonar_leak_count_total)",
    "sum by (client_address) (pgsonar_connection_opened_total)",
    "sum by (service_instance_id) (pgsonar_slot_used)",
)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Both backends, after the sessions that stand still have been told to either."""
    folder = tmp_path_factory.mktemp("both")
    port = free_port()
    with (
        server_with_users() as server,
        VictoriaMetrics(needed("victoriametrics"), folder / "sent") as sent,
        Prometheus(needed("prometheus"), folder / "scraped", port) as scraped,
        contextlib.ExitStack() as clients,
    ):
        settings = (
            f"exporters.otlp_http.metrics_endpoint={sent.metrics_endpoint}",
            f"exporters.prometheus.endpoint=127.0.0.1:{port}",
            "service.pipelines.metrics={exporters: [otlp_http, prometheus, file], " + REST,
            "service.pipelines.logs={exporters: [file], " + REST,
            "service.pipelines.traces={exporters: [file], " + REST,
        )
        agent = Agent(folder, f"[{{name: db, port: {server.port}}}]", settings=settings)
        try:
            for number in range(CLIENTS):
                client = leak(server, number) if number < LEAKS else WireClient(server.port, f"app{number}")
                clients.enter_context(contextlib.closing(client))
            agent.wait_for(lambda: len(agent.events(None, "opened")) == LEAKS, 15, "not all leaks were opened")
            until(lambda: leaks_of(scraped) == leaks_of(sent) == [LEAKS], "the leaks did not arrive", 20)
            time.sleep(2)  # another export, another scrape: from here on nothing changes
            yield sent, scraped
        finally:
            agent.stop()


def leaks_of(backend):
    return list(asked(backend.port, "sum(pgsonar_leak_count_total)", time.time()).values())


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_has_one_answer(both, query):
    sent, scraped = (asked(backend.port, query, time.time()) for backend in both)

    assert sent
    assert sent == pytest.approx(scraped)  # VictoriaMetrics keeps twelve digits


def test_the_sessions_are_those_that_were_opened(both):
    for backend in both:
        (used,) = asked(backend.port, "sum(pgsonar_slot_used)", time.time()).values()
        assert used == CLIENTS
