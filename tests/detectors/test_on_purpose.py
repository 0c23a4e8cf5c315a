"""Whose sessions are assumed to be held open on purpose: known tools by the names they give themselves, nobody else."""

import pytest

from build import START, backend, title
from pgsonar.detectors.evidence import assumed_by, is_on_purpose
from pgsonar.model import PoolerClient, Session, Via

# As they stand in pg_stat_activity.
TOOLS = """
pg_dump
pg_dumpall
pg_basebackup
pg_receivewal
pg_recvlogical
barman
barman_receive_wal
barman_streaming_backup
pgBackRest [backup]
pgBackRest [stanza-create]
wal-g
Patroni
Patroni heartbeat
Patroni restapi
repmgr
repmgrd
pg_cron
pg_cron scheduler
pgAgent
pg_timetable
datadog-agent
telegraf
Zabbix agent 2
postgres_exporter
pgwatch
pganalyze_collector
pgsonar
pg_dump - 10.0.0.5:40000
""".strip().splitlines()

# Applications, each beside the tool that it could be taken for.
APPLICATIONS = """
report_exporter
postgres_exporter_ui
my_postgres_exporter
csv-exporter
exporter
walgreens_app
walg_orders
patient_monitoring
monitor
monitoring
prometheus-shop
telegraf-billing
telegraph
datadog_ads
datadog-agent-shop
zabbixology
barman_cocktails
barmanager
bartender
patroni_bulk_insert
patronize
repmgr_reports
pg_dump_viewer
pg_dumpster
pg_cron_ui
cron
crontab
nightly cron
pgagent2
pgbouncer
orders, not telegraf
""".strip().splitlines()


def called(application=None, user="app"):
    one = backend(title("idle", user=user))
    one.session = Session(4711, "client backend", START, application=application)
    return one


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_is_known_by_the_first_word_of_its_name(name):
    assert assumed_by(called(name)) == assumed_by(called(name.upper())) == "application_name"


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_that_has_such_a_word_in_its_name_is_none(name):
    assert not is_on_purpose(called(name))
    assert not is_on_purpose(called("shop", user=name))


@pytest.mark.parametrize(
    "role", ["postgres_exporter", "datadog", "zbx_monitor", "streaming_barman", "repmgr", "Telegraf"]
)
def test_a_role_of_a_tool_is_enough_where_no_login_tells_more(role):
    assert assumed_by(called(user=role)) == "role"


def test_an_application_behind_a_pooler_is_known_by_the_name_that_the_pooler_tells():
    one = called("pgbouncer")
    client = PoolerClient("1", None, "app", "shop", "active", "telegraf", "10.0.0.9", 5000, None, 0.0)
    one.via = Via("10.0.0.1:6432", client=client)

    assert assumed_by(one) == "application_name"


@pytest.mark.parametrize("name", [None, "", " ", "[backup]", "é"])
def test_no_name_is_no_tool(name):
    assert not is_on_purpose(called(name))
