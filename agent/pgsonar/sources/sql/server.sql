-- Which server this is, and which of its processes serves us. Needs no privilege.
select pg_backend_pid() as own_pid,
       current_setting('server_version_num')::int as version_number,
       current_setting('server_version') as version,
       pg_is_in_recovery() as is_standby,
       (extract(epoch from clock_timestamp() - pg_postmaster_start_time()) * 1000000)::bigint as age,  -- us
       (select system_identifier::text from pg_control_system()) as system_identifier,
       pg_has_role(current_user, 'pg_read_all_stats', 'member') as sees_all
