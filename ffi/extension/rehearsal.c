/*
 * rehearsal.c: finds what a command would drop: lets the server do it in a subtransaction that is undone.
 *
 * So the list has what the server finds: through CASCADE, in partitions, in schemas, of an owner or an
 * extension; after the server's own check of rights; and with the locks that the server takes. Those are
 * kept, so that what the list says remains true until the command has run.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_event_trigger.h"
#include "catalog/catalog.h"
#include "commands/event_trigger.h"
#include "miscadmin.h"
#include "pgwake_ddl.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

typedef struct Rehearsal
{
	Node	   *parsetree;
	MemoryContext keep;			/* outlives the subtransaction */
	List	   *dropped;		/* of Target, in the order of the drops */
} Rehearsal;

static Rehearsal *running = NULL;
static object_access_hook_type next_object_access_hook = NULL;

static void
collect(ObjectAccessType access, Oid classid, Oid objid, int objsubid, void *arg)
{
	MemoryContext caller_context;
	Target	   *target;

	if (next_object_access_hook)
		next_object_access_hook(access, classid, objid, objsubid, arg);

	/* The server does not report either what it drops for purposes of its own. */
	if (running == NULL || access != OAT_DROP ||
		(((ObjectAccessDrop *) arg)->dropflags & PERFORM_DELETION_INTERNAL) != 0)
		return;
	/* Nor what is beyond the database, nor event triggers. */
	if (IsSharedRelation(classid) || classid == EventTriggerRelationId)
		return;

	caller_context = MemoryContextSwitchTo(running->keep);
	target = palloc0(sizeof(Target));
	ObjectAddressSubSet(target->address, classid, objid, objsubid);
	running->dropped = lappend(running->dropped, target);
	MemoryContextSwitchTo(caller_context);
}

void
install_collector(void)
{
	next_object_access_hook = object_access_hook;
	object_access_hook = collect;
}

static void
set_in_subtransaction(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * The work may be in a function with rights, a search_path and an error context of its own: all give way to
 * the command's. The end of the subtransaction brings them back.
 */
void
as_the_command(const StartingCommand *command, CommandWork work, void *argument, bool keep_locks)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	List	   *locked = keep_locks ? locked_relations() : NIL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		error_context_stack = command->error_context;
		/* What the server has to say, it will say when it does it. Without hearers it does not even look. */
		set_in_subtransaction("client_min_messages", "error");
		set_in_subtransaction("log_min_messages", "error");
		set_in_subtransaction("search_path", command->search_path);
		SetUserIdAndSecContext(command->user, command->security_context);
		work(argument);
		if (keep_locks)
			hand_locks_to_parent();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller_context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();

	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller_context);
	CurrentResourceOwner = caller_owner;

	/* Not before the subtransaction is over: it would be left open in the middle of the transaction. */
	if (error != NULL)
		ReThrowError(error);
	if (keep_locks)
		tell_standbys_of_locks(locked);
}

/* Whether a part of ALTER TABLE belongs to those that the server runs first, which drop (AT_PASS_DROP). */
static bool
is_dropping(const AlterTableCmd *part)
{
	switch (part->subtype)
	{
		case AT_DropColumn:
		case AT_DropConstraint:
		case AT_DropExpression:
		case AT_DropIdentity:
		case AT_DropNotNull:
			return true;
		case AT_ColumnDefault:
			return part->def == NULL;
		default:
			return false;
	}
}

/*
 * Whether the command drops, and its drops can be undone. Those of DROP SUBSCRIPTION cannot, as it drops the
 * slot on another server, nor those of CONCURRENTLY, which commits.
 */
bool
is_rehearsed(Node *parsetree)
{
	ListCell   *cell;

	switch (nodeTag(parsetree))
	{
		case T_DropStmt:
			return !castNode(DropStmt, parsetree)->concurrent;
		case T_DropOwnedStmt:
		case T_DropUserMappingStmt:
			return true;
		case T_AlterDomainStmt:
			/* DROP CONSTRAINT and DROP NOT NULL (gram.y). */
			return strchr("XO", castNode(AlterDomainStmt, parsetree)->subtype) != NULL;
		case T_AlterOpFamilyStmt:
			return castNode(AlterOpFamilyStmt, parsetree)->isDrop;
		case T_AlterTableStmt:
			foreach(cell, castNode(AlterTableStmt, parsetree)->cmds)
			{
				if (is_dropping(lfirst_node(AlterTableCmd, cell)))
					return true;
			}
			return false;
		default:
			return false;
	}
}

/* A copy to be run. Other parts of ALTER TABLE may rewrite the table, and run functions of the user's. */
static Node *
dropping_part(Node *parsetree)
{
	Node	   *copy = copyObject(parsetree);

	if (IsA(copy, AlterTableStmt))
	{
		AlterTableStmt *alter = castNode(AlterTableStmt, copy);
		List	   *parts = NIL;
		ListCell   *cell;

		foreach(cell, alter->cmds)
		{
			if (is_dropping(lfirst_node(AlterTableCmd, cell)))
				parts = lappend(parts, lfirst(cell));
		}
		alter->cmds = parts;
	}
	return copy;
}

static void
run(void *argument)
{
	Rehearsal  *outer = running;
	Rehearsal  *rehearsal = argument;
	PlannedStmt *statement = makeNode(PlannedStmt);
	/* The server keeps lists for its own event triggers, which must not hear of what is undone. */
	bool		has_lists = EventTriggerBeginCompleteQuery();

	PG_TRY();
	{
		running = rehearsal;
		statement->commandType = CMD_UTILITY;
		statement->utilityStmt = dropping_part(rehearsal->parsetree);
		statement->stmt_location = -1;
		/* As a part of another command, it runs no event triggers. */
		ProcessUtility(statement, "", false, PROCESS_UTILITY_SUBCOMMAND, NULL, NULL, None_Receiver, NULL);
	}
	PG_FINALLY();
	{
		running = outer;
		if (has_lists)
			EventTriggerEndCompleteQuery();
	}
	PG_END_TRY();
}

/* A list of Target, in the order of pg_event_trigger_dropped_objects(): what was dropped last comes first. */
List *
rehearse(const StartingCommand *command)
{
	Rehearsal	rehearsal = {command->parsetree, CurrentMemoryContext, NIL};
	List	   *targets = NIL;

	as_the_command(command, run, &rehearsal, true);
	for (int i = list_length(rehearsal.dropped) - 1; i >= 0; i--)
		targets = lappend(targets, list_nth(rehearsal.dropped, i));
	return targets;
}
