/* Writes an outbox row, and wakes readers, as the functions in PL/pgSQL do: 02_wake.sql says why in this way. */

#include "pgwake.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/execnodes.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/xid8.h"

/* The state's bits from this one on are the number of the table being written. */
#define TURN_SHIFT 60

/* An outbox row. */
#define COLUMNS 4

/* False: it has no value. */
static bool
state_read(Oid sequence, int64 *state)
{
	LOCAL_FCINFO(call, 1);

	InitFunctionCallInfoData(*call, NULL, 1, InvalidOid, NULL, NULL);
	call->args[0].value = ObjectIdGetDatum(sequence);
	call->args[0].isnull = false;
	*state = DatumGetInt64(pg_sequence_last_value(call));
	return !call->isnull;
}

/* Whether the table is as we made it. For any other the server's own INSERT knows what to do. */
static bool
is_as_made(Relation outbox, CatalogIndexState indexes)
{
	static const Oid types[COLUMNS] = {INT8OID, XID8OID, INT8OID, TEXTOID};
	Form_pg_class class = outbox->rd_rel;
	TupleDesc	row = RelationGetDescr(outbox);

	if (class->relam != HEAP_TABLE_AM_OID || class->relhasrules || class->relrowsecurity
		|| outbox->trigdesc != NULL || row->natts != COLUMNS)
		return false;
	if (row->constr != NULL && (row->constr->num_check > 0 || row->constr->has_generated_stored))
		return false;
	for (int i = 0; i < COLUMNS; i++)
	{
		if (TupleDescAttr(row, i)->atttypid != types[i])
			return false;
	}
	for (int i = 0; i < indexes->ri_NumIndices; i++)
	{
		const IndexInfo *index = indexes->ri_IndexRelationInfo[i];

		if (index->ii_Expressions != NIL || index->ii_Predicate != NIL || index->ii_ExclusionOps != NULL
			|| !indexes->ri_IndexRelationDescs[i]->rd_index->indimmediate)
			return false;
	}
	return true;
}

/* The row itself, with its index and with TOAST: what the server does for its own tables. */
static bool
row_insert(Relation outbox, Oid id_sequence, int64 what, StringInfo changes)
{
	CatalogIndexState indexes;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {false};
	bool		is_plain;

	if (outbox->rd_rel->relkind != RELKIND_RELATION)
		return false;
	indexes = CatalogOpenIndexes(outbox);
	is_plain = is_as_made(outbox, indexes);
	if (is_plain)
	{
		values[0] = Int64GetDatum(nextval_internal(id_sequence, false));
		values[1] = FullTransactionIdGetDatum(GetTopFullTransactionId());
		values[2] = Int64GetDatum(what);
		values[3] = PointerGetDatum(cstring_to_text_with_len(changes->data, changes->len));
		CatalogTupleInsertWithInfo(outbox, heap_form_tuple(RelationGetDescr(outbox), values, nulls), indexes);
	}
	CatalogCloseIndexes(indexes);
	return is_plain;
}

/* By a query: its deferred trigger must be queued. */
static void
pull_rope(void)
{
	/* The one thing that lives as long as the session: the server itself sees when it is stale. */
	static SPIPlanPtr plan = NULL;

	SPI_connect();
	if (plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(
			"INSERT INTO pgwake.rope VALUES (pg_catalog.currval('pgwake.outbox_id'::pg_catalog.regclass))", 0, NULL);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "pgwake: the query that wakes readers was not prepared: %s",
				 SPI_result_code_string(SPI_result));
		plan = prepared;
	}
	if (SPI_execute_plan(plan, NULL, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "pgwake: the query that wakes readers failed: %s", SPI_result_code_string(SPI_result));
	SPI_finish();
}

/* False: nothing was written. */
bool
outbox_write(const Template *template, StringInfo changes)
{
	static const char *const names[] = {"outbox_0", "outbox_1", "outbox_2"};
	Oid			schema = get_namespace_oid("pgwake", true);
	Oid			state_sequence = get_relname_relid("state", schema);
	Oid			id_sequence = get_relname_relid("outbox_id", schema);
	Relation	outbox;
	int64		state;
	bool		is_written;

	/* Readers take whoever has looked at the state and has no number for a mere onlooker. */
	(void) GetTopFullTransactionId();
	if (!OidIsValid(state_sequence) || !OidIsValid(id_sequence) || !state_read(state_sequence, &state))
		return false;
	outbox = relation_openrv_extended(makeRangeVar(pstrdup("pgwake"),
												   pstrdup(names[Min((uint64) state >> TURN_SHIFT, 2)]), -1),
									  RowExclusiveLock, true);
	if (outbox == NULL)
		return false;
	is_written = row_insert(outbox, id_sequence, strtoll(template->target, NULL, 10), changes);
	/* The lock stays until the transaction ends, as always. */
	relation_close(outbox, NoLock);
	/* What was read stays true: it came with a lock that readers look at once they have turned the bell on. */
	if (is_written && (U64FromFullTransactionId(GetTopFullTransactionId()) & (uint64) state) == 0)
		pull_rope();
	return is_written;
}
