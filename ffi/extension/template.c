/* Reads what a trigger's arguments say of the text to write, and whether the table still has those columns. */

#include "pgwake.h"

#include "catalog/pg_type.h"

/*
 * Of a trigger's two arguments the second is lines: version, transport, target, opening, between, before_old, closing;
 * then of each column of the key number, name, type, form, lead. In one argument, since the server copies each of
 * them for each statement.
 */

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

/* The next line, taken apart from the rest; NULL: there is none. */
static const char *
line_read(char **rest)
{
	char	   *line = *rest;
	char	   *end = strchr(line, '\n');

	if (end == NULL)
		return NULL;
	*end = '\0';
	*rest = end + 1;
	return line;
}

static bool
column_read(char **rest, KeyColumn *column)
{
	const char *number = line_read(rest);
	const char *name = line_read(rest);
	const char *type = line_read(rest);
	const char *form = line_read(rest);
	const char *lead = line_read(rest);

	if (lead == NULL || atoi(number) < 1 || atoi(number) > MaxAttrNumber)
		return false;
	column->number = (AttrNumber) atoi(number);
	column->name = name;
	column->lead = lead;
	for (size_t i = 0; i < lengthof(types); i++)
	{
		if (strcmp(type, types[i].name) == 0)
		{
			column->type = types[i].oid;
			return form_read(form, column->type, &column->form);
		}
	}
	return false;
}

/* False: this is for another version of this library. */
bool
template_read(const Trigger *trigger, Template *result)
{
	char	   *rest;
	const char *version;
	const char *transport;

	if (trigger->tgnargs != 2)
		return false;
	rest = pstrdup(trigger->tgargs[1]);
	version = line_read(&rest);
	transport = line_read(&rest);
	if (transport == NULL || strcmp(version, TEMPLATE_VERSION) != 0)
		return false;
	result->is_wal = strcmp(transport, "wal") == 0;
	if (!result->is_wal && strcmp(transport, "outbox") != 0)
		return false;
	result->target = line_read(&rest);
	result->opening = line_read(&rest);
	result->between = line_read(&rest);
	result->before_old = line_read(&rest);
	result->closing = line_read(&rest);
	if (result->closing == NULL)
		return false;
	result->columns_count = 0;
	while (*rest != '\0')
	{
		if (result->columns_count == INDEX_MAX_KEYS
			|| !column_read(&rest, &result->columns[result->columns_count]))
			return false;
		result->columns_count++;
	}
	return result->columns_count > 0;
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
