/* Writes a statement's message into the WAL, as part of its transaction. */

#include "pgwake.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

void
wal_write(const Template *template, StringInfo message)
{
	/* From 17 on there is a fourth argument, flush, of which others take no notice. */
	DirectFunctionCall4(pg_logical_emit_message_text, BoolGetDatum(true),
						CStringGetTextDatum(template->target),
						PointerGetDatum(cstring_to_text_with_len(message->data, message->len)),
						BoolGetDatum(false));
}
