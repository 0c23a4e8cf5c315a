// The shop of with_psycopg.py with a pool of node-postgres.

const { setTimeout: sleep } = require("node:timers/promises");
const { Pool } = require("pg");

const [port, user, application_name, leaks] = process.argv.slice(2);
// By itself it would close, after ten seconds, what nobody uses.
const login = { host: "127.0.0.1", port, user, database: "postgres", application_name };
const pool = new Pool({ ...login, max: 8, idleTimeoutMillis: 0 });
let orders = 0;
let resting = false;

async function order(number) {
  const client = await pool.connect();
  await client.query("begin");
  const { rows } = await client.query("select pg_backend_pid() as pid, inet_client_port() as port");
  await sleep(3);
  await client.query("insert into orders values ($1)", [number]);
  if (number % 10 === 0 && number / 10 <= Number(leaks)) {
    console.log(`leaked ${rows[0].pid} ${rows[0].port}`);
    throw new Error("payment refused");
  }
  await client.query("commit");
  client.release();
}

async function work() {
  while (!resting) {
    orders += 1;
    await order(orders).catch((error) => console.error(error.message));
    await sleep(20);
  }
}

async function open() {
  const all = await Promise.all(Array.from({ length: 8 }, () => pool.connect()));
  all.forEach((client) => client.release());
  return Promise.all(Array.from({ length: 4 }, work));
}

const working = open();
process.stdin.once("data", async () => {
  resting = true;
  await working;
  console.log(`rested ${orders}`);
});
process.stdin.once("end", () => process.exit());
