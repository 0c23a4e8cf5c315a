// The shop of with_psycopg.py with a pool of HikariCP's.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

class WithHikari {
    static final AtomicInteger orders = new AtomicInteger();
    static volatile boolean resting;

    static void order(HikariDataSource pool, int number, int leaks) throws Exception {
        var connection = pool.getConnection();
        var ends = connection.createStatement().executeQuery("select pg_backend_pid(), inet_client_port()");
        ends.next();
        Thread.sleep(3);
        connection.createStatement().execute("insert into orders values (" + number + ")");
        if (number % 10 == 0 && number / 10 <= leaks) {
            System.out.println("leaked " + ends.getInt(1) + " " + ends.getInt(2));
            throw new IllegalStateException("payment refused");
        }
        connection.commit();
        connection.close();
    }

    static void work(HikariDataSource pool, int leaks) {
        while (!resting) {
            try {
                order(pool, orders.incrementAndGet(), leaks);
                Thread.sleep(20);
            } catch (Exception error) {
                System.err.println(error);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        var config = new HikariConfig();
        config.setJdbcUrl(
            "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/postgres?ApplicationName=" + arguments[2]);
        config.setUsername(arguments[1]);
        config.setMaximumPoolSize(8); // it keeps all of them open
        config.setAutoCommit(false); // the driver begins a transaction with the first statement
        var pool = new HikariDataSource(config);
        int leaks = Integer.parseInt(arguments[3]);
        List<Thread> threads = new ArrayList<>();
        for (int worker = 0; worker < 4; worker++) {
            threads.add(new Thread(() -> work(pool, leaks)));
        }
        threads.forEach(Thread::start);
        System.in.read();
        resting = true;
        for (var thread : threads) {
            thread.join();
        }
        System.out.println("rested " + orders.get());
        System.in.readAllBytes();
        System.exit(0);
    }
}
