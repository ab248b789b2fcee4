-- Durable messages: written into the log with the transaction, and read from there (docs/messages.md).
--
-- A channel is the message's prefix as it stands. Nobody could subscribe to a name that is refused here.
-- Where this is not installed, pg_logical_emit_message does the same.

CREATE OR REPLACE FUNCTION pgwake.publish(channel text, payload bytea) RETURNS pg_lsn
  LANGUAGE plpgsql STRICT AS $pgwake$
BEGIN
  IF octet_length(channel) NOT BETWEEN 1 AND 63 THEN
    RAISE EXCEPTION 'a channel has 1 to 63 bytes, and this name has %', octet_length(channel)
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Choose another name.';
  END IF;
  RETURN pg_logical_emit_message(true, channel, payload);
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.publish(channel text, payload text) RETURNS pg_lsn
  LANGUAGE sql STRICT AS $pgwake$
  SELECT pgwake.publish(publish.channel, convert_to(publish.payload, getdatabaseencoding()))
$pgwake$;
