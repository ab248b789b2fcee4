/* Reads what a trigger's arguments say of the text to write, and whether the table still has those columns. */

#include "pgwake.h"

#include "catalog/pg_type.h"

/*
 * function, version, transport, target, opening, between, before_old, closing; then of each column of the key
 * number, name, type, form, lead.
 */
enum
{
	VERSION = 1, TRANSPORT, TARGET, OPENING, BETWEEN, BEFORE_OLD, CLOSING, COLUMNS
};
#define COLUMN_ARGUMENTS 5

/* Types whose text depends on no setting. */
static const struct
{
	const char *name;
	Oid			oid;
}			types[] =
{
	{"int4", INT4OID}, {"int8", INT8OID}, {"text", TEXTOID}, {"uuid", UUIDOID}, {"varchar", VARCHAROID},
	{"numeric", NUMERICOID}, {"bpchar", BPCHAROID}, {"int2", INT2OID}, {"bool", BOOLOID}
};

static bool
form_read(const char *text, Oid type, Form *form)
{
	bool		is_number = type == INT2OID || type == INT4OID || type == INT8OID;

	if (strcmp(text, "raw") == 0)
		*form = FORM_RAW;
	else if (strcmp(text, "number") == 0)
		*form = FORM_NUMBER;
	else if (strcmp(text, "bool") == 0)
		*form = FORM_BOOL;
	else
		*form = FORM_STRING;
	return is_number ? *form <= FORM_NUMBER : *form == (type == BOOLOID ? FORM_BOOL : FORM_STRING);
}

static bool
column_read(char **arguments, KeyColumn *column)
{
	int			number = atoi(arguments[0]);

	if (number < 1 || number > MaxAttrNumber)
		return false;
	column->number = (AttrNumber) number;
	column->name = arguments[1];
	column->lead = arguments[4];
	for (size_t i = 0; i < lengthof(types); i++)
	{
		if (strcmp(arguments[2], types[i].name) == 0)
		{
			column->type = types[i].oid;
			return form_read(arguments[3], column->type, &column->form);
		}
	}
	return false;
}

/* False: this is for another version of this library. */
bool
template_read(const Trigger *trigger, Template *result)
{
	char	  **arguments = trigger->tgargs;
	int			rest = trigger->tgnargs - COLUMNS;

	if (rest <= 0 || rest % COLUMN_ARGUMENTS != 0 || rest / COLUMN_ARGUMENTS > INDEX_MAX_KEYS
		|| strcmp(arguments[VERSION], TEMPLATE_VERSION) != 0)
		return false;
	result->is_wal = strcmp(arguments[TRANSPORT], "wal") == 0;
	if (!result->is_wal && strcmp(arguments[TRANSPORT], "outbox") != 0)
		return false;
	result->target = arguments[TARGET];
	result->opening = arguments[OPENING];
	result->between = arguments[BETWEEN];
	result->before_old = arguments[BEFORE_OLD];
	result->closing = arguments[CLOSING];
	result->columns_count = rest / COLUMN_ARGUMENTS;
	for (int i = 0; i < result->columns_count; i++)
	{
		if (!column_read(arguments + COLUMNS + i * COLUMN_ARGUMENTS, &result->columns[i]))
			return false;
	}
	return true;
}

/* Whether the table still has the columns that this was made for. */
bool
template_fits(const Template *template, TupleDesc row)
{
	for (int i = 0; i < template->columns_count; i++)
	{
		const KeyColumn *column = &template->columns[i];
		Form_pg_attribute attribute;

		if (column->number > row->natts)
			return false;
		attribute = TupleDescAttr(row, column->number - 1);
		if (attribute->attisdropped || attribute->atttypid != column->type
			|| strcmp(NameStr(attribute->attname), column->name) != 0)
			return false;
	}
	return true;
}
