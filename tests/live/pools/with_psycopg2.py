"""The shop of with_psycopg.py with a pool of psycopg2's, which keeps what was not given back by itself."""

import itertools
import sys
import threading
import time

from psycopg2.pool import ThreadedConnectionPool

PORT, USER, APPLICATION, LEAKS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
numbers = itertools.count(1)
resting = threading.Event()


def order(pool, number):
    connection = pool.getconn()
    cursor = connection.cursor()
    cursor.execute("select pg_backend_pid(), inet_client_port()")
    pid, port = cursor.fetchone()
    time.sleep(0.003)
    cursor.execute("insert into orders values (%s)", [number])
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
            print(error, file=sys.stderr)
        time.sleep(0.02)


# It closes what is given back beyond the first number.
login = {"host": "127.0.0.1", "port": PORT, "user": USER, "dbname": "postgres", "application_name": APPLICATION}
pool = ThreadedConnectionPool(8, 8, **login)
threads = [threading.Thread(target=work, args=(pool,)) for _ in range(4)]
for thread in threads:
    thread.start()
sys.stdin.readline()
resting.set()
for thread in threads:
    thread.join()
print("rested", next(numbers) - 1, flush=True)
sys.stdin.read()
