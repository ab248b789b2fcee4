/*
 * pgwake_ddl.h: what the files of the extension share.
 *
 * starting.c knows the command that is about to start, rehearsal.c finds what it would drop, under locks that
 * locks.c keeps, named.c finds what it names, and pgwake_ddl.c answers in SQL.
 */
#ifndef PGWAKE_DDL_H
#define PGWAKE_DDL_H

#include "catalog/objectaddress.h"
#include "nodes/parsenodes.h"
#include "tcop/cmdtag.h"
#include "utils/palloc.h"

/* A command whose ddl_command_start triggers are running, and what it would have run with. */
typedef struct StartingCommand
{
	struct StartingCommand *below;	/* the one in whose triggers this one was sent */
	MemoryContext triggers;		/* lives as long as the triggers run */
	MemoryContext within;		/* its parent, in which this struct lives */
	MemoryContextCallback forget;	/* called at the end of `within` */
	SubTransactionId subtransaction;
	char		ident[64];		/* marks `triggers`, by its address */

	Node	   *parsetree;
	CommandTag	tag;
	Oid			user;
	int			security_context;
	char	   *search_path;
	ErrorContextCallback *error_context;
} StartingCommand;

/* An object that a command names or would drop. */
typedef struct Target
{
	ObjectAddress address;		/* objectId is 0 where there is no such object */
	bool		named;			/* by the command, as opposed to: by cascade */
	bool		if_exists;
	const char *behavior;		/* "cascade" or "restrict"; NULL where the command does not drop it */

	/* As the command spells it, where there is no such object. Without a type it is the one of the tag. */
	const char *type;
	char	   *schema;
	char	   *name;
	char	   *identity;
} Target;

/* Runs with the rights, the search_path and the error context of the command, and is undone afterwards. */
typedef void (*CommandWork) (void *argument);

extern void remember_starting(Node *parsetree, CommandTag tag);
extern StartingCommand *starting_command(int *depth);

extern void hand_locks_to_parent(void);
extern List *locked_relations(void);
extern void tell_standbys_of_locks(List *before);

extern void as_the_command(const StartingCommand *command, CommandWork work, void *argument, bool keep_locks);
extern void install_collector(void);
extern bool is_rehearsed(Node *parsetree);
extern List *rehearse(const StartingCommand *command);

extern List *named_targets(const StartingCommand *command);

#endif							/* PGWAKE_DDL_H */
