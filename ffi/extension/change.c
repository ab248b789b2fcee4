/*
 * The trigger function for a statement on a watched table: it tells the keys of its rows as the trigger's arguments
 * say, or else hands the statement on to the function in PL/pgSQL that was generated for it, which can tell all.
 */

#include "pgwake.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(pgwake_change);

/* The text for the statement. False: that is for the slower path. */
static bool
changes_read(const Template *template, TriggerData *data, StringInfo text)
{
	TupleDesc	row = RelationGetDescr(data->tg_relation);
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	bool		is_delete = TRIGGER_FIRED_BY_DELETE(data->tg_event);
	StringInfoData old;
	int			start;

	appendStringInfoString(text, template->opening);
	start = text->len;
	if (!keys_append(template, row, is_delete ? data->tg_oldtable : data->tg_newtable, text))
		return false;
	if (is_update && !template->is_wal)
	{
		appendStringInfoString(text, template->before_old);
		if (!keys_append(template, row, data->tg_oldtable, text))
			return false;
	}
	else if (is_update)
	{
		/* In the WAL a change of the key looks different. */
		initStringInfo(&old);
		if (!keys_append(template, row, data->tg_oldtable, &old) || old.len != text->len - start
			|| memcmp(old.data, text->data + start, old.len) != 0)
			return false;
	}
	appendStringInfoString(text, template->closing);
	return text->len <= BYTES_MAX;
}

/* Whether there is anything to tell, and whether it is for us. */
typedef enum Extent
{
	NOTHING, FEW, MANY
} Extent;

static Extent
extent_of(TriggerData *data)
{
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	Tuplestorestate *rows = TRIGGER_FIRED_BY_DELETE(data->tg_event) ? data->tg_oldtable : data->tg_newtable;
	int64		count;

	if (rows == NULL || (is_update && data->tg_oldtable == NULL))
		return MANY;
	count = tuplestore_tuple_count(rows);
	if (count == 0)
		return NOTHING;
	if (count > ROWS_MAX || (is_update && tuplestore_tuple_count(data->tg_oldtable) != count))
		return MANY;
	return FEW;
}

/* False: nothing was written. */
static bool
change_tell(TriggerData *data)
{
	Template	template;
	StringInfoData text;
	Extent		extent = extent_of(data);

	if (extent != FEW)
		return extent == NOTHING;
	if (!template_read(data->tg_trigger, &template)
		|| !template_fits(&template, RelationGetDescr(data->tg_relation)))
		return false;
	initStringInfo(&text);
	if (!changes_read(&template, data, &text))
		return false;
	if (!template.is_wal)
		return outbox_write(&template, &text);
	wal_write(&template, &text);
	return true;
}

/* Calls the function in PL/pgSQL with all that the server gave us. */
static Datum
change_hand_on(TriggerData *data)
{
	LOCAL_FCINFO(call, 0);
	FmgrInfo	function;
	List	   *name;
	Oid			oid;

	if (data->tg_trigger->tgnargs == 0)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("the trigger %s does not say which function of pgwake it runs", data->tg_trigger->tgname),
				 errhint("SELECT pgwake.rebuild()")));
	name = list_make2(makeString("pgwake"), makeString(data->tg_trigger->tgargs[0]));
	oid = LookupFuncName(name, 0, NULL, false);
	if (get_func_rettype(oid) != TRIGGEROID)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("pgwake.%s is no trigger function", data->tg_trigger->tgargs[0]),
				 errhint("SELECT pgwake.rebuild()")));
	fmgr_info(oid, &function);
	InitFunctionCallInfoData(*call, &function, 0, InvalidOid, (Node *) data, NULL);
	return FunctionCallInvoke(call);
}

Datum
pgwake_change(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("only a trigger can call this function")));
	if (change_tell(data))
		return PointerGetDatum(NULL);
	return change_hand_on(data);
}
