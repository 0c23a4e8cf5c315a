"""PostgreSQL's stderr log as its elog.c writes it, for any log_line_prefix."""

from dataclasses import dataclass, field, replace

REFUSED = "sorry, too many clients already"
DEBIAN = "%m [%p] %q%u@%d "
EVERYTHING = "aubdrhLpPtmnievxQcls"  # escapes beside %q and %%


@dataclass(frozen=True)
class Who:
    """A process that writes; a session, unless it has another type."""

    user: str = "app"
    database: str = "shop"
    application: str = "psql"
    address: str = "10.0.0.7(51234)"
    kind: str = "client backend"
    pid: int = 4711
    state: str = "00000"
    transaction: str = "3/12"
    second: int = 5
    tag: str = "SELECT"

    @property
    def is_session(self):
        return self.kind == "client backend"


CHECKPOINTER = Who("", "", "", "", "checkpointer", 77, transaction="", tag="")
STARTUP = Who("", "", "", "", "startup", 78, transaction="", tag="")


@dataclass
class Log:
    """The text of a log."""

    prefix: str = DEBIAN
    lines: list[str] = field(default_factory=list)

    def write(self, who, severity, message, state=None, **more):
        """One entry: what it says, and its DETAIL, STATEMENT and so on; line breaks are followed by tabs."""
        who = replace(who, state=state or who.state)
        for label, text in [(severity, message), *more.items()]:
            body = text.replace("\n", "\n\t")
            self.lines.append(f"{self.before(who)}{label.upper()}:  {body}\n")
        return self

    def ordinary(self):
        """What stands in every log."""
        self.write(STARTUP, "log", "database system is ready to accept connections")
        self.write(CHECKPOINTER, "log", "checkpoint starting: time")
        for second, transaction in ((6, "3/12"), (7, "")):
            who = Who(second=second, transaction=transaction)
            self.write(who, "log", "connection authorized: user=app database=shop application_name=psql")
        self.write(Who(), "error", 'relation "nobodys" does not exist', statement="select * from nobodys")
        return self

    @property
    def text(self):
        return "".join(self.lines)

    def before(self, who):
        """What log_line_prefix comes to."""
        told, rest = "", self.prefix
        while rest:
            plain, _, rest = rest.partition("%")
            told += plain
            width = ""
            while rest[:1] in "-0123456789" and rest:
                width, rest = width + rest[0], rest[1:]
            escape, rest = rest[:1], rest[1:]
            if escape == "q":
                if not who.is_session:
                    break
            elif escape == "%":
                told += "%"
            elif escape:
                value = self.value(escape, who)
                number = int(width or 0)
                told += value.ljust(-number) if number < 0 else value.rjust(number)
        return told

    @staticmethod
    def value(escape, who):
        at = f"2026-11-28 21:51:{who.second:02}"
        values = {
            "a": who.application,
            "u": who.user,
            "d": who.database,
            "b": who.kind,
            "r": who.address,
            "h": who.address.partition("(")[0],
            "L": "127.0.0.1" if who.is_session else "",
            "p": str(who.pid),
            "P": "",
            "t": f"{at} UTC",
            "m": f"{at}.123 UTC",
            "n": f"17644518{who.second:02}.123",
            "s": f"{at} UTC",
            "i": who.tag,
            "e": who.state,
            "v": who.transaction,
            "x": "0",
            "Q": "0",
            "c": f"6929f1{who.second:02}.{who.pid:x}",
            "l": str(who.second),
        }
        return values[escape]
