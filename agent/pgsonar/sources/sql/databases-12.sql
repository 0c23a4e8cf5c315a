-- Names of databases, and how many connections each may have (-1: no limit).
select d.oid as id, d.datname as name, d.datconnlimit as connection_limit,
       null::bigint as sessions, null::bigint as abandoned, null::bigint as fatal, null::bigint as killed
  from pg_database as d
