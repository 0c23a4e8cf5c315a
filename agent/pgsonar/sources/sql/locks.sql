-- How many locks these sessions hold; those that each transaction has on itself aside.
select pid, count(*) as locks
  from pg_locks
 where granted and locktype not in ('virtualxid', 'transactionid') and pid = any (%(pids)s)
 group by pid
