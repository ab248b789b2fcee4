/*
 * pgwake_ddl.c: answers, in a ddl_command_start function, what the command is about to drop or names.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_trigger.h"
#include "commands/event_trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "pgwake_ddl.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

PG_FUNCTION_INFO_V1(pgwake_ddl_on_ddl_start);
PG_FUNCTION_INFO_V1(pgwake_ddl_targets);

/* The columns of pgwake_ddl.targets(), in this order. */
enum
{
	TARGETS_ORD, TARGETS_COMMAND_TAG, TARGETS_ROLE, TARGETS_OBJECT_TYPE, TARGETS_SCHEMA_NAME,
	TARGETS_OBJECT_NAME, TARGETS_COLUMN_NAME, TARGETS_IDENTITY, TARGETS_EXISTS, TARGETS_IF_EXISTS,
	TARGETS_BEHAVIOR, TARGETS_CLASSID, TARGETS_OBJID, TARGETS_OBJSUBID, TARGETS_RELKIND, TARGETS_IS_TEMP,
	TARGETS_DEPTH, TARGETS_COLUMNS
};

typedef struct Row
{
	Datum		values[TARGETS_COLUMNS];
	bool		nulls[TARGETS_COLUMNS];
} Row;

typedef struct Answer
{
	CommandTag	tag;
	int			depth;
	List	   *targets;
	int			next;			/* index in targets */
	int			ord;
} Answer;

void
_PG_init(void)
{
	install_collector();
}

Datum
pgwake_ddl_on_ddl_start(PG_FUNCTION_ARGS)
{
	EventTriggerData *event;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("pgwake_ddl.on_ddl_start() can only be called by an event trigger"));
	event = (EventTriggerData *) fcinfo->context;
	if (strcmp(event->event, "ddl_command_start") != 0)
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("pgwake_ddl.on_ddl_start() belongs to event triggers on ddl_command_start"));
	remember_starting(event->parsetree, event->tag);
	PG_RETURN_NULL();
}

static void
put(Row *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

static void
put_text(Row *row, int column, const char *text)
{
	if (text != NULL)
		put(row, column, CStringGetTextDatum(text));
}

/* "materialized view" of DROP MATERIALIZED VIEW: the type of what does not exist. */
static char *
type_in_tag(CommandTag tag)
{
	const char *space = strchr(GetCommandTagName(tag), ' ');

	if (tag == CMDTAG_CREATE_TABLE_AS || tag == CMDTAG_SELECT_INTO)
		return "table";
	return space == NULL ? NULL : asc_tolower(space + 1, strlen(space + 1));
}

/* Whether the object has no schema of its own, but one through its table. */
static bool
is_of_table(Oid classid)
{
	return classid == AttrDefaultRelationId || classid == TriggerRelationId || classid == PolicyRelationId;
}

/*
 * The schema and the name, where the server tells them in pg_event_trigger_dropped_objects(). Returns the
 * schema, also for what is one.
 */
static Oid
put_names(Row *row, const ObjectAddress *object)
{
	Relation	catalog;
	HeapTuple	tuple;
	Oid			schema = InvalidOid;
	Datum		value;
	bool		isnull;

	if (object->classId == NamespaceRelationId)
		schema = object->objectId;
	if (!is_objectclass_supported(object->classId))
		return schema;

	catalog = table_open(object->classId, AccessShareLock);
	tuple = get_catalog_object_by_oid(catalog, get_object_attnum_oid(object->classId), object->objectId);
	if (tuple != NULL && get_object_attnum_namespace(object->classId) != InvalidAttrNumber)
	{
		value = heap_getattr(tuple, get_object_attnum_namespace(object->classId), RelationGetDescr(catalog),
							 &isnull);
		schema = isnull ? InvalidOid : DatumGetObjectId(value);
		put_text(row, TARGETS_SCHEMA_NAME, isTempNamespace(schema) ? "pg_temp" : get_namespace_name(schema));
	}
	if (tuple != NULL && get_object_namensp_unique(object->classId) && object->objectSubId == 0)
	{
		value = heap_getattr(tuple, get_object_attnum_name(object->classId), RelationGetDescr(catalog),
							 &isnull);
		put_text(row, TARGETS_OBJECT_NAME, isnull ? NULL : NameStr(*DatumGetName(value)));
	}
	table_close(catalog, AccessShareLock);
	return schema;
}

/* False for what the server does not tell either: the temporary objects of other sessions. */
static bool
put_existing(Row *row, const ObjectAddress *object)
{
	List	   *names = NIL;
	List	   *arguments = NIL;
	char	   *identity = getObjectIdentityParts(object, &names, &arguments, true);
	Oid			schema;
	bool		is_temp;

	/* What the command itself has made before it dropped it. */
	if (identity == NULL)
		return false;
	schema = put_names(row, object);
	is_temp = OidIsValid(schema) && isTempNamespace(schema);
	if (OidIsValid(schema) && !is_temp && isAnyTempNamespace(schema))
		return false;
	if (is_of_table(object->classId) && names != NIL)
	{
		put_text(row, TARGETS_SCHEMA_NAME, linitial(names));
		is_temp = strcmp(linitial(names), "pg_temp") == 0;
	}
	put(row, TARGETS_IS_TEMP, BoolGetDatum(is_temp));
	put_text(row, TARGETS_IDENTITY, identity);
	put_text(row, TARGETS_OBJECT_TYPE, getObjectTypeDescription(object, true));
	put(row, TARGETS_CLASSID, ObjectIdGetDatum(object->classId));
	put(row, TARGETS_OBJID, ObjectIdGetDatum(object->objectId));
	put(row, TARGETS_OBJSUBID, Int32GetDatum(object->objectSubId));
	if (object->classId == RelationRelationId)
	{
		put(row, TARGETS_RELKIND, CharGetDatum(get_rel_relkind(object->objectId)));
		if (object->objectSubId != 0)
			put_text(row, TARGETS_COLUMN_NAME, get_attname(object->objectId, object->objectSubId, true));
	}
	return true;
}

/* False where the target is not to be told. */
static bool
fill(Row *row, const Answer *answer, const Target *target)
{
	memset(row->nulls, true, sizeof(row->nulls));
	if (OidIsValid(target->address.objectId))
	{
		if (!put_existing(row, &target->address))
			return false;
	}
	else
	{
		put_text(row, TARGETS_OBJECT_TYPE, target->type ? target->type : type_in_tag(answer->tag));
		put_text(row, TARGETS_SCHEMA_NAME, target->schema);
		put_text(row, TARGETS_OBJECT_NAME, target->name);
		put_text(row, TARGETS_IDENTITY, target->identity);
		put(row, TARGETS_IS_TEMP,
			BoolGetDatum(target->schema != NULL && strcmp(target->schema, "pg_temp") == 0));
	}
	put(row, TARGETS_EXISTS, BoolGetDatum(OidIsValid(target->address.objectId)));
	put_text(row, TARGETS_COMMAND_TAG, GetCommandTagName(answer->tag));
	put_text(row, TARGETS_ROLE, target->named ? "target" : "cascade");
	put(row, TARGETS_IF_EXISTS, BoolGetDatum(target->if_exists));
	put_text(row, TARGETS_BEHAVIOR, target->behavior);
	put(row, TARGETS_DEPTH, Int32GetDatum(answer->depth));
	return true;
}

/* ALTER TABLE may say it for one column and not for another. DROP OWNED names no object. */
static bool
is_cascade(Node *parsetree, List *named)
{
	ListCell   *cell;

	if (IsA(parsetree, DropOwnedStmt))
		return castNode(DropOwnedStmt, parsetree)->behavior == DROP_CASCADE;
	foreach(cell, named)
	{
		const Target *target = lfirst(cell);

		if (target->behavior != NULL && strcmp(target->behavior, "cascade") == 0)
			return true;
	}
	return false;
}

/* All that goes, and which of it the command names. */
static List *
find_dropped(const StartingCommand *command)
{
	List	   *dropped = rehearse(command);
	/* The rehearsal holds the locks by which these are still the same. */
	List	   *named = named_targets(command);
	Target		as_whole = {.behavior = is_cascade(command->parsetree, named) ? "cascade" : "restrict"};
	ListCell   *cell;
	ListCell   *other;

	foreach(cell, dropped)
	{
		Target	   *target = lfirst(cell);
		const Target *like = &as_whole;

		foreach(other, named)
		{
			const Target *candidate = lfirst(other);

			if (memcmp(&candidate->address, &target->address, sizeof(ObjectAddress)) == 0)
				like = candidate;
		}
		target->named = like->named;
		target->if_exists = like->if_exists;
		target->behavior = like->behavior ? like->behavior : as_whole.behavior;
	}
	return dropped;
}

static Answer *
find_answer(bool exact)
{
	Answer	   *answer = palloc0(sizeof(Answer));
	StartingCommand *command = starting_command(&answer->depth);

	if (command == NULL)
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("pgwake_ddl.targets() can only be called in a ddl_command_start event trigger "
					   "function"),
				errhint("The event trigger \"!pgwake_ddl\" must be enabled, and sort before that "
						"function's."));
	answer->tag = command->tag;
	if (exact && is_rehearsed(command->parsetree))
		answer->targets = find_dropped(command);
	else
		answer->targets = named_targets(command);
	return answer;
}

Datum
pgwake_ddl_targets(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	Answer	   *answer;
	Row			row;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext caller_context;
		TupleDesc	tuple_desc;

		call = SRF_FIRSTCALL_INIT();
		caller_context = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &tuple_desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		call->tuple_desc = BlessTupleDesc(tuple_desc);
		call->user_fctx = find_answer(PG_ARGISNULL(0) || PG_GETARG_BOOL(0));
		MemoryContextSwitchTo(caller_context);
	}

	call = SRF_PERCALL_SETUP();
	answer = call->user_fctx;
	while (answer->next < list_length(answer->targets))
	{
		Target	   *target = list_nth(answer->targets, answer->next++);

		if (!fill(&row, answer, target))
			continue;
		put(&row, TARGETS_ORD, Int32GetDatum(++answer->ord));
		SRF_RETURN_NEXT(call, HeapTupleGetDatum(heap_form_tuple(call->tuple_desc, row.values, row.nulls)));
	}
	SRF_RETURN_DONE(call);
}
