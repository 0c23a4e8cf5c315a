-- Names of roles, and how many connections each may have (-1: no limit). A superuser's limit is not enforced.
select oid as id, rolname as name, rolsuper as is_superuser,
       case when rolsuper then -1 else rolconnlimit end as connection_limit
  from pg_roles
