/* What the parts of the library know of each other. The names that the server sees are in change.c and module.c. */

#ifndef PGWAKE_EXTENSION_H
#define PGWAKE_EXTENSION_H

#include "postgres.h"

#include "commands/trigger.h"
#include "lib/stringinfo.h"

/* The layout of a trigger's arguments. Whoever made them for another one gets the function in PL/pgSQL. */
#define TEMPLATE_VERSION "2"

/* Of one outbox row or message, as in the generated functions; what is more is told in parts, by them. */
#define ROWS_MAX 256
#define BYTES_MAX (1024 * 1024)

/* How a value becomes JSON. */
typedef enum Form
{
	FORM_RAW,					/* its digits */
	FORM_NUMBER,				/* the same, if a JSON number surely holds them, or else a string of them */
	FORM_BOOL,
	FORM_STRING
} Form;

typedef struct KeyColumn
{
	AttrNumber	number;
	const char *name;
	Oid			type;
	Form		form;
	const char *lead;			/* what stands before its value */
} KeyColumn;

/* What a statement's changes look like: made by pgwake.library_template(), read from the trigger. */
typedef struct Template
{
	bool		is_wal;
	const char *target;			/* of the outbox: `what`; of the WAL: the prefix */
	const char *opening;
	const char *between;		/* two rows */
	const char *before_old;		/* the keys before an UPDATE; the WAL has none */
	const char *closing;
	int			columns_count;
	KeyColumn	columns[INDEX_MAX_KEYS];
} Template;

extern bool template_read(const Trigger *trigger, Template *result);
extern bool template_fits(const Template *template, TupleDesc row);

extern bool keys_append(const Template *template, TupleDesc row, Tuplestorestate *rows, StringInfo out);

extern bool outbox_write(const Template *template, StringInfo changes);
extern void wal_write(const Template *template, StringInfo message);

#endif
