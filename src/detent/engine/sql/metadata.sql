-- name: update_metadata
-- Locks the runs that ask, and those whose documents change, by falling id.
select i, document, is_refused from detent.update_metadata(%(environment)s, %(requests)s, %(most)s)

-- name: add_tags
-- Locks the runs by falling id.
select i, count from detent.add_tags(%(environment)s, %(requests)s, %(most)s)

-- name: tag_runs
-- Locks the live runs by falling id.
select i, count from detent.tag_runs(%(environment)s, %(requests)s, %(most)s)

-- name: annotate_runs
-- Locks the live runs by falling id.
select i, document, size from detent.annotate_runs(%(environment)s, %(requests)s, %(most)s)
