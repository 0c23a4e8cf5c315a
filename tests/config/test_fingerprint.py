"""The short name of a configuration."""

from pgsonar.config.fingerprint import config_hash

TEXT = (
    "receivers: {sockets: {interval: 200ms}, postgresql: {username: a, password: PASSWORD}}\n"
    "exporters: {otlp_http: {endpoint: 'https://USER@x:1', headers: {api-key: HEADER}}}\n"
    "service: {telemetry: {redaction: {addresses: hash, key: KEY-of-sixteen-characters}}}\n"
)
SECRETS = {"PASSWORD": "p1", "USER": "u:p", "HEADER": "h1", "KEY": "k1"}


def named(read, text=TEXT, **secrets):
    for name, secret in (SECRETS | secrets).items():
        text = text.replace(name, secret)
    return config_hash(read(text))


def test_the_same_configuration_has_the_same_name_however_it_is_written(read):
    reordered = "\n".join(reversed(TEXT.splitlines())).replace("200ms", "0.2s")

    assert named(read) == named(read, reordered)
    assert len(named(read)) == 12


def test_another_value_makes_another_name(read):
    changed = [TEXT.replace("200ms", "300ms"), TEXT.replace("api-key", "key"), TEXT.replace("x:1", "x:2")]

    assert len({named(read, text) for text in (TEXT, *changed)}) == 4


def test_a_secret_makes_no_difference_but_whether_there_is_one_does(read):
    others = [{name: "another"} for name in SECRETS]

    assert {named(read, **other) for other in others} == {named(read)}
    assert named(read, TEXT.replace(", password: PASSWORD", "")) != named(read)
