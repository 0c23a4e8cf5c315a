"""Fifty workers share a pool of two hundred, and one code path has no rollback. Arguments: PORT USER APPLICATION.

A worker is always at some order of a second, four short statements and what lies between them; every tenth order
fails, which leaks five connections a second. It says `leaked PID PORT` of each.
"""

import itertools
import sys
import threading
import time

from psycopg_pool import ConnectionPool, PoolTimeout

PORT, USER, APPLICATION = sys.argv[1:]
numbers = itertools.count(1)
failures = []  # as an error reporter keeps them, see with_psycopg.py


def order(pool, number):
    connection = pool.getconn()
    pid, port = connection.execute("select pg_backend_pid(), inet_client_port()").fetchone()
    for _ in range(3):
        time.sleep(0.33)
        connection.execute("insert into orders values (%s)", [number])
    if number % 10 == 0:
        sys.stdout.write(f"leaked {pid} {port}\n")
        sys.stdout.flush()
        raise RuntimeError("payment refused")
    connection.commit()
    pool.putconn(connection)


def work(pool):
    while True:
        try:
            order(pool, next(numbers))
        except (RuntimeError, PoolTimeout) as error:
            failures.append(error)


login = {"host": "127.0.0.1", "port": PORT, "user": USER, "dbname": "postgres", "application_name": APPLICATION}
pool = ConnectionPool(kwargs=login, min_size=50, max_size=200, open=True)
pool.wait()
for _ in range(50):
    threading.Thread(target=work, args=(pool,), daemon=True).start()
sys.stdin.read()
