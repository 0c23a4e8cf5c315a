"""The shop of shop.py with a pool of psycopg's, which does not keep what was not given back."""

import shop
from psycopg_pool import ConnectionPool

# As an error reporter keeps them: the traceback holds the frame, and the frame the connection. The pool does not: a
# connection that nobody holds closes itself.
failures = []

with ConnectionPool(kwargs=shop.LOGIN, min_size=shop.SIZE, max_size=shop.SIZE) as pool:
    shop.run(pool, failures.append)
