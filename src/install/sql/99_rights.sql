-- Takes from PUBLIC what it got by default, and makes the triggers of watched tables anew.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgwake FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA pgwake FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA pgwake FROM PUBLIC;

SELECT pgwake.make_event_triggers();
SELECT pgwake.rebuild();

-- Triggers made by an earlier version asked these.
DROP SEQUENCE IF EXISTS pgwake.outbox_turn, pgwake.bell;
