"""The shop of shop.py with a pool of psycopg2's, which keeps what was not given back by itself."""

import sys

import shop
from psycopg2.pool import ThreadedConnectionPool

# It closes what is given back beyond the first number.
pool = ThreadedConnectionPool(shop.SIZE, shop.SIZE, **shop.LOGIN)
shop.run(pool, lambda error: print(error, file=sys.stderr))
