/*
 * starting.c: knows whether a command is about to start in this session, and which.
 *
 * The event trigger that sorts first says when the triggers of a command begin. Nothing says when they are
 * over; but the server runs them in a memory context of their own (event_trigger.c, EventTriggerInvoke),
 * which is deleted after the last one. So that context is marked with an identifier, and a command is
 * starting as long as its context is there and bears the mark: the server forgets the identifier of a context
 * that it deletes, and another context at the same address does not have it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "nodes/memnodes.h"
#include "pgwake_ddl.h"
#include "utils/memutils.h"

/* The innermost one. Those that are over may still be in the chain. */
static StartingCommand *innermost = NULL;

static void
forget(void *argument)
{
	StartingCommand **link = &innermost;

	while (*link != NULL && *link != argument)
		link = &(*link)->below;
	if (*link != NULL)
		*link = (*link)->below;
}

static bool
is_starting(const StartingCommand *command)
{
	MemoryContext child = command->within->firstchild;

	while (child != NULL && child != command->triggers)
		child = child->nextchild;
	/* After an error that something caught, the context may wait for its end, but not the subtransaction. */
	return child != NULL && child->ident == command->ident && SubTransactionIsActive(command->subtransaction);
}

/* To be called by a function of an event trigger, in the memory context in which the server runs it. */
void
remember_starting(Node *parsetree, CommandTag tag)
{
	MemoryContext triggers = CurrentMemoryContext;
	MemoryContext within = MemoryContextGetParent(triggers);
	StartingCommand *command = MemoryContextAllocZero(within, sizeof(StartingCommand));

	command->triggers = triggers;
	command->within = within;
	command->subtransaction = GetCurrentSubTransactionId();
	snprintf(command->ident, sizeof(command->ident), "before %s", GetCommandTagName(tag));
	command->parsetree = parsetree;
	command->tag = tag;
	GetUserIdAndSecContext(&command->user, &command->security_context);
	command->search_path = MemoryContextStrdup(within, namespace_search_path);
	command->error_context = error_context_stack;

	/* What is over goes before the new mark is set: it may have had a context at the same address. */
	while (innermost != NULL && !is_starting(innermost))
		innermost = innermost->below;
	command->below = innermost;
	innermost = command;
	command->forget.func = forget;
	command->forget.arg = command;
	MemoryContextRegisterResetCallback(within, &command->forget);
	MemoryContextSetIdentifier(triggers, command->ident);
}

/* NULL where no command is starting. *depth becomes the number of commands in whose triggers it was sent. */
StartingCommand *
starting_command(int *depth)
{
	StartingCommand *found = NULL;

	*depth = 0;
	for (StartingCommand *command = innermost; command != NULL; command = command->below)
	{
		if (!is_starting(command))
			continue;
		if (found == NULL)
			found = command;
		else
			(*depth)++;
	}
	return found;
}
