"""Whose a socket is, by the address that it was accepted on."""

import pytest

from pgsonar.model import Endpoint
from pgsonar.tracking.listening import Listener, Listening

ANY_4, ANY_6 = "0.0.0.0", "::"


def listener(name, *addresses, **changes):
    """One who listens on these addresses; on unknown ones if none is named."""
    return Listener(name, 1, 5432, frozenset(addresses) or None)._replace(**changes)


@pytest.mark.parametrize(
    ("listeners", "address", "owner"),
    [
        pytest.param([listener("a")], "10.0.0.1", "a", id="nothing is known of the only one"),
        pytest.param([listener("a", "10.0.0.1")], "10.0.0.1", "a", id="its address"),
        pytest.param([listener("a", "127.0.0.1")], "10.0.0.1", None, id="a proxy before it"),
        pytest.param([listener("a", "127.0.0.1"), listener("b", "10.0.0.1")], "10.0.0.1", "b", id="two clusters"),
        pytest.param([listener("a", ANY_4), listener("b", "10.0.0.1")], "10.0.0.1", "b", id="the narrowest"),
        pytest.param([listener("a", ANY_4), listener("b", "10.0.0.1")], "10.0.0.2", "a", id="all else"),
        pytest.param([listener("a", ANY_4)], "fd00::1", None, id="another family"),
        pytest.param([listener("a", ANY_6)], "fd00::1", "a", id="any of IPv6"),
        pytest.param([listener("a", ANY_6)], "10.0.0.1", None, id="no socket is of both families"),
        pytest.param([listener("a", addresses=frozenset())], "10.0.0.1", None, id="unix sockets alone"),
        pytest.param([listener("a", ANY_6), listener("b", ANY_4)], "10.0.0.1", "b", id="each family its own"),
        pytest.param([listener("a", "10.0.0.1"), listener("b")], "10.0.0.2", "b", id="who is unknown gets the rest"),
        pytest.param([listener("a"), listener("b")], "10.0.0.1", None, id="two unknown ones"),
        pytest.param([listener("a"), listener("p", is_server=False)], "10.0.0.1", "a", id="an unknown pooler"),
        pytest.param([listener("a"), listener("p", "10.0.0.1", is_server=False)], "10.0.0.1", "p", id="a pooler"),
        pytest.param([listener("a", netns=2)], "10.0.0.1", None, id="another namespace"),
        pytest.param([listener("a", port=5433)], "10.0.0.1", None, id="another port"),
    ],
)
def test_the_narrowest_listener_has_accepted_it(listeners, address, owner):
    assert Listening(listeners).owner(1, Endpoint(address, 5432)) == owner
    assert Listening(reversed(listeners)).owner(1, Endpoint(address, 5432)) == owner


def test_the_same_listeners_are_equal_in_any_order():
    a, b = listener("a", "10.0.0.1"), listener("b")

    assert Listening([a, b]) == Listening([b, a])
    assert Listening([a, b]) != Listening([a])
