/*
 * locks.c: keeps the locks of a subtransaction that is undone, for the transaction around it.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgwake_ddl.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/standby.h"
#include "utils/resowner.h"

/*
 * What a subtransaction does when it commits (CommitSubTransaction): the lock on its own number goes, as
 * nobody needs to wait for it, and the transaction around it holds the others.
 */
void
hand_locks_to_parent(void)
{
	TransactionId xid = GetCurrentTransactionIdIfAny();

	CurrentResourceOwner = CurTransactionResourceOwner;
	if (TransactionIdIsValid(xid))
		XactLockTableDelete(xid);
	LockReassignCurrentOwner(NULL, 0);
}

static List *
with_relation(List *relations, const PROCLOCK *held)
{
	const LOCKTAG *tag = &held->tag.myLock->tag;

	if ((held->holdMask & LOCKBIT_ON(AccessExclusiveLock)) == 0 ||
		tag->locktag_type != LOCKTAG_RELATION || tag->locktag_field1 != MyDatabaseId)
		return relations;
	return lappend_oid(relations, tag->locktag_field2);
}

/* The relations that this transaction alone may use, in the order of their numbers. */
List *
locked_relations(void)
{
	List	   *relations = NIL;

	for (int partition = 0; partition < NUM_LOCK_PARTITIONS; partition++)
	{
		LWLock	   *lock = LockHashPartitionLockByIndex(partition);
#if PG_VERSION_NUM >= 160000
		dlist_iter	held;

		LWLockAcquire(lock, LW_SHARED);
		dlist_foreach(held, &MyProc->myProcLocks[partition])
			relations = with_relation(relations, dlist_container(PROCLOCK, procLink, held.cur));
#else
		SHM_QUEUE  *queue = &MyProc->myProcLocks[partition];
		Pointer		held;

		LWLockAcquire(lock, LW_SHARED);
		held = SHMQueueNext(queue, queue, offsetof(PROCLOCK, procLink));
		while (held != NULL)
		{
			relations = with_relation(relations, (PROCLOCK *) held);
			held = SHMQueueNext(queue, &((PROCLOCK *) held)->procLink, offsetof(PROCLOCK, procLink));
		}
#endif
		LWLockRelease(lock);
	}
	list_sort(relations, list_oid_cmp);
	return relations;
}

/*
 * A standby releases the locks of the subtransaction when it sees its end, and the server does not tell it of
 * a lock that the transaction already has when it takes it once more. So those are logged here that are
 * new.
 */
void
tell_standbys_of_locks(List *before)
{
	List	   *relations = locked_relations();
	ListCell   *old = list_head(before);
	ListCell   *cell;

	if (!XLogStandbyInfoActive())
		return;
	foreach(cell, relations)
	{
		while (old != NULL && lfirst_oid(old) < lfirst_oid(cell))
			old = lnext(before, old);
		if (old == NULL || lfirst_oid(old) != lfirst_oid(cell))
			LogAccessExclusiveLock(MyDatabaseId, lfirst_oid(cell));
	}
	list_free(relations);
}
