-- Every process the server knows of. The function behind pg_stat_activity is asked, because the view joins pg_authid and
-- pg_database and waits for ever while one of them is locked. Ages are microseconds by the server's own clock.
select a.pid, a.backend_type, a.usesysid as user_id, a.datid as database_id, a.application_name,
       host(a.client_addr) as client_address, a.client_port, a.state, a.wait_event_type, a.wait_event,
       (extract(epoch from clock_timestamp() - a.backend_start) * 1000000)::bigint as age,
       (extract(epoch from clock_timestamp() - a.state_change) * 1000000)::bigint as state_age,
       (extract(epoch from clock_timestamp() - a.xact_start) * 1000000)::bigint as transaction_age,
       case when a.wait_event_type = 'Lock' then pg_blocking_pids(a.pid) end as blocked_by,
       case when %(query_text)s = 'traceparent'
            then substring(a.query from 'traceparent=''([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})''')
            when %(query_text)s = 'normalized'  -- comments and literals go, also a literal that was cut off
            then left(regexp_replace(regexp_replace(regexp_replace(regexp_replace(a.query,
                     '/\*.*?(\*/|$)', ' ', 'g'),
                     '\$([A-Za-z_]*?)\$.*?(\$\1\$|$)', '?', 'g'),
                     '''([^''\\]|''''|\\.)*(''|$)', '?', 'g'),
                     '\m[0-9][0-9.xXa-fA-FeE]*\M', '?', 'g'), 1000)
       end as query_text
  from pg_stat_get_activity(null) as a
 where a.pid is not null
