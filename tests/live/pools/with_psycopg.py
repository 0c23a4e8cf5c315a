"""A shop with a pool of psycopg's, where every tenth order fails in a path without rollback, until LEAKS have.

Arguments: PORT USER APPLICATION LEAKS. It says `leaked PID PORT` of each connection it does not give back. A line of
input lets it rest: it says `rested ORDERS` and keeps its pool warm, until the input ends.
"""

import itertools
import sys
import threading
import time

from psycopg_pool import ConnectionPool

PORT, USER, APPLICATION, LEAKS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
numbers = itertools.count(1)
resting = threading.Event()
# As an error reporter keeps them: the traceback holds the frame, and the frame the connection. The pool does not: a
# connection that nobody holds closes itself.
failures = []


def order(pool, number):
    connection = pool.getconn()
    pid, port = connection.execute("select pg_backend_pid(), inet_client_port()").fetchone()
    time.sleep(0.003)
    connection.execute("insert into orders values (%s)", [number])
    if number % 10 == 0 and number // 10 <= LEAKS:
        sys.stdout.write(f"leaked {pid} {port}\n")
        sys.stdout.flush()
        raise RuntimeError("payment refused")
    connection.commit()
    pool.putconn(connection)


def work(pool):
    while not resting.is_set():
        try:
            order(pool, next(numbers))
        except RuntimeError as error:
            failures.append(error)
        time.sleep(0.02)


login = {"host": "127.0.0.1", "port": PORT, "user": USER, "dbname": "postgres", "application_name": APPLICATION}
with ConnectionPool(kwargs=login, min_size=8, max_size=8) as pool:
    threads = [threading.Thread(target=work, args=(pool,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    resting.set()
    for thread in threads:
        thread.join()
    print("rested", next(numbers) - 1, flush=True)
    sys.stdin.read()
