-- Settings that say how many may come in, and what would end a session by itself. Absent names are older than the server
-- or not for us to see.
select name, setting, unit
  from pg_settings
 where name in ('port', 'data_directory', 'max_connections', 'superuser_reserved_connections', 'reserved_connections',
                'max_wal_senders', 'max_worker_processes', 'autovacuum_max_workers',
                'authentication_timeout', 'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
                'idle_session_timeout', 'transaction_timeout', 'client_connection_check_interval',
                'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count', 'tcp_user_timeout',
                'track_activity_query_size')
    or name like '%.%reserved_connections'  -- a provider's own, such as rds.rds_superuser_reserved_connections
