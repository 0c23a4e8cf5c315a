"""What a reload may not change is refused by its key."""

import pytest

from pgsonar.config.fixed import refuse_fixed
from pgsonar.config.load import load
from pgsonar.errors import ConfigError


def config(*settings):
    return load([], ["receivers.sockets.targets=[{name: db, port: 1}]", *settings], {})


STORED = ("extensions.file_storage.directory=/var/lib/x", "service.extensions=[file_storage]")
BACKEND = "exporters.otlp_http/a={endpoint: http://127.0.0.1:1}"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("extensions.file_storage.directory=/var/lib/y", "extensions.file_storage"),
        ("service.telemetry.redaction={users: hash, key: 0123456789abcdef}", "service.telemetry.redaction"),
        ("exporters.otlp_http/a.sending_queue.storage=memory", "exporters.otlp_http/a.sending_queue.storage"),
    ],
)
def test_it_is_refused_by_its_key(change, key):
    with pytest.raises(ConfigError, match=f"^{key} cannot change") as refused:
        refuse_fixed(config(*STORED, BACKEND), config(*STORED, BACKEND, change))
    assert refused.value.hint == "restart the agent"


@pytest.mark.parametrize(
    "change",
    [
        "exporters.otlp_http/a.sending_queue.queue_size=7",
        "exporters.otlp_http/b={endpoint: http://127.0.0.1:2, sending_queue: {storage: memory}}",
    ],
)
def test_what_else_changes_is_not(change):
    refuse_fixed(config(*STORED, BACKEND), config(*STORED, BACKEND, change))
