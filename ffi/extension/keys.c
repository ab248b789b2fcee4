/* Makes one text of the keys in a transition table. */

#include "pgwake.h"

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

/* The digits of the longest int8, its sign and the end. */
#define DIGITS_MAX 21

static void
append_digits(Oid type, Datum value, StringInfo out)
{
	enlargeStringInfo(out, DIGITS_MAX);
	if (type == INT8OID)
		out->len += pg_lltoa(DatumGetInt64(value), out->data + out->len);
	else
		out->len += pg_ltoa(type == INT4OID ? DatumGetInt32(value) : DatumGetInt16(value),
							 out->data + out->len);
}

/* False: of so many digits it may be either, which is for the slower path to find out. */
static bool
append_number(Oid type, Datum value, StringInfo out)
{
	int			start = out->len;
	int			length;

	append_digits(type, value, out);
	length = out->len - start;
	if (type != INT8OID || length < 16)
		return true;
	if (length <= 17)
		return false;
	enlargeStringInfo(out, 2);
	memmove(out->data + start + 1, out->data + start, length);
	out->data[start] = '"';
	out->data[start + 1 + length] = '"';
	out->len += 2;
	out->data[out->len] = '\0';
	return true;
}

static void
append_string(Oid type, Datum value, StringInfo out)
{
	char	   *string;

	if (type == NUMERICOID)
		string = DatumGetCString(DirectFunctionCall1(numeric_out, value));
	else if (type == UUIDOID)
		string = DatumGetCString(DirectFunctionCall1(uuid_out, value));
	else
		string = TextDatumGetCString(value);
	escape_json(out, string);
	pfree(string);
}

/* False: a value is one that the slower path tells. */
static bool
append_key(const Template *template, TupleTableSlot *slot, StringInfo out)
{
	for (int i = 0; i < template->columns_count; i++)
	{
		const KeyColumn *column = &template->columns[i];
		bool		is_null;
		Datum		value = slot_getattr(slot, column->number, &is_null);

		if (is_null)
			return false;
		appendStringInfoString(out, column->lead);
		switch (column->form)
		{
			case FORM_RAW:
				append_digits(column->type, value, out);
				break;
			case FORM_NUMBER:
				if (!append_number(column->type, value, out))
					return false;
				break;
			case FORM_BOOL:
				appendStringInfoString(out, DatumGetBool(value) ? "true" : "false");
				break;
			case FORM_STRING:
				append_string(column->type, value, out);
				break;
		}
	}
	return out->len <= BYTES_MAX;
}

/* The keys of all rows. False: that is for the slower path. */
bool
keys_append(const Template *template, TupleDesc row, Tuplestorestate *rows, StringInfo out)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(row, &TTSOpsMinimalTuple);
	bool		is_first = true;
	bool		is_done = true;

	/* Whoever else reads it has a read pointer of his own, and takes that before each row. */
	tuplestore_select_read_pointer(rows, 0);
	tuplestore_rescan(rows);
	while (is_done && tuplestore_gettupleslot(rows, true, false, slot))
	{
		if (!is_first)
			appendStringInfoString(out, template->between);
		is_first = false;
		is_done = append_key(template, slot, out);
	}
	ExecDropSingleTupleTableSlot(slot);
	return is_done;
}
