"""The health endpoint over real HTTP."""

import json
import urllib.error
import urllib.request

import pytest

from pgsonar.daemon.health import Health, HealthEndpoint
from pgsonar.errors import ConfigError


def ask(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize(("ok", "status", "word"), [(True, 200, "ok"), (False, 503, "failing")])
def test_it_answers_with_the_reasons_in_either_case(ok, status, word):
    endpoint = HealthEndpoint("127.0.0.1:0", lambda: Health(ok, ["because"], {"version": "1"}))
    endpoint.start()
    try:
        assert ask(endpoint.port) == (status, {"status": word, "reasons": ["because"], "version": "1"})
    finally:
        endpoint.close()


def test_an_endpoint_without_a_port_is_an_error_that_names_the_key():
    with pytest.raises(ConfigError, match=r"extensions\.health_check\.endpoint"):
        HealthEndpoint("localhost", lambda: Health(ok=True, reasons=[], facts={}))
