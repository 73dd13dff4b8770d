-- name: lease_hooks
-- Locks the session (share) and due rows (skip locked).
select * from detent.lease_hooks(%(session)s::uuid, %(fence)s::bigint, %(most)s)

-- name: end_hooks
delete from detent.final_hooks using json_to_recordset(%(holders)s) as h (id uuid, fence bigint)
where run_id = h.id and final_hooks.fence = h.fence
