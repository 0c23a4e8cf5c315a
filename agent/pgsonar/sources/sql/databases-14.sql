-- Names of databases, how many connections each may have (-1: no limit), and how sessions ended since the statistics began.
select d.oid as id, d.datname as name, d.datconnlimit as connection_limit, pg_stat_get_db_sessions(d.oid) as sessions,
       pg_stat_get_db_sessions_abandoned(d.oid) as abandoned, pg_stat_get_db_sessions_fatal(d.oid) as fatal,
       pg_stat_get_db_sessions_killed(d.oid) as killed
  from pg_database as d
