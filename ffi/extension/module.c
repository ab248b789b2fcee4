/* What makes this a module: its magic, and which arguments of triggers it understands. */

#include "pgwake.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(pgwake_library_version);

/* For pgwake.check(): what the triggers were made for may be another one. */
Datum
pgwake_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(atoi(TEMPLATE_VERSION));
}
