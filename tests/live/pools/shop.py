"""A shop with four workers, where every tenth order fails in a path without rollback, until LEAKS have.

Arguments of its programs: PORT USER APPLICATION LEAKS. It says `leaked PID PORT` of each connection it does not give
back. A line of input lets it rest: it says `rested ORDERS` and keeps its pool warm, until the input ends.
"""

import itertools
import sys
import threading
import time

PORT, USER, APPLICATION, LEAKS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
LOGIN = {"host": "127.0.0.1", "port": PORT, "user": USER, "dbname": "postgres", "application_name": APPLICATION}
SIZE = 8  # of the pool
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


def work(pool, failed):
    while not resting.is_set():
        try:
            order(pool, next(numbers))
        except RuntimeError as error:
            failed(error)
        time.sleep(0.02)


def run(pool, failed):
    """Takes orders from a pool; whoever is told of what has failed may keep it."""
    threads = [threading.Thread(target=work, args=(pool, failed)) for _ in range(4)]
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    resting.set()
    for thread in threads:
        thread.join()
    print("rested", next(numbers) - 1, flush=True)
    sys.stdin.read()
