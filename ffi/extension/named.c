/*
 * named.c: finds the objects that a command names, as they are before it.
 *
 * Names are looked up without waiting, and what is found may be gone a moment later, unless the locks of a
 * rehearsal are held. Commands that are not listed here name nothing, rather than something wrong.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "pgwake_ddl.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

typedef struct Naming
{
	Node	   *parsetree;
	MemoryContext keep;			/* outlives the subtransaction of the search */
	List	   *targets;
	bool		if_exists;
	const char *behavior;
} Naming;

/* The object at an address, or one that does not exist. */
static Target *
add(Naming *naming, ObjectAddress address)
{
	Target	   *target = palloc0(sizeof(Target));

	target->address = address;
	target->named = true;
	target->if_exists = naming->if_exists;
	target->behavior = naming->behavior;
	naming->targets = lappend(naming->targets, target);
	return target;
}

static void
add_by_name(Naming *naming, ObjectAddress address, List *spelled)
{
	MemoryContext caller_context = MemoryContextSwitchTo(naming->keep);
	Target	   *target = add(naming, address);

	if (!OidIsValid(address.objectId) && spelled != NIL)
	{
		target->name = pstrdup(strVal(llast(spelled)));
		if (list_length(spelled) > 1)
			target->schema = pstrdup(strVal(list_nth(spelled, list_length(spelled) - 2)));
		target->identity = NameListToQuotedString(spelled);
	}
	MemoryContextSwitchTo(caller_context);
}

/* A column, constraint, trigger, rule or policy. */
static void
add_part(Naming *naming, ObjectAddress address, const char *type, RangeVar *relation, const char *name)
{
	MemoryContext caller_context = MemoryContextSwitchTo(naming->keep);
	Target	   *target = add(naming, address);

	if (!OidIsValid(address.objectId))
	{
		target->type = type;
		target->name = pstrdup(name);
		target->schema = relation->schemaname ? pstrdup(relation->schemaname) : NULL;
		target->identity = psprintf("%s on %s", quote_identifier(name),
									quote_qualified_identifier(relation->schemaname, relation->relname));
	}
	MemoryContextSwitchTo(caller_context);
}

/* The parts of a name, from the forms in which the grammar has it for one type of object or another. */
static List *
spelling(Node *object)
{
	ListCell   *cell;

	switch (nodeTag(object))
	{
		case T_String:
			return list_make1(object);
		case T_TypeName:
			return castNode(TypeName, object)->names;
		case T_ObjectWithArgs:
			return castNode(ObjectWithArgs, object)->objname;
		case T_List:
			foreach(cell, (List *) object)
			{
				/* A cast, for example, is two types. */
				if (!IsA(lfirst(cell), String))
					return NIL;
			}
			return (List *) object;
		default:
			return NIL;
	}
}

static List *
spelling_of_relation(RangeVar *relation)
{
	List	   *names = list_make1(makeString(relation->relname));

	if (relation->schemaname)
		names = lcons(makeString(relation->schemaname), names);
	return names;
}

/* Where the command would create it. */
static char *
schema_for_new(void)
{
	List	   *search_path = fetch_search_path(false);
	char	   *schema = search_path == NIL ? NULL : get_namespace_name(linitial_oid(search_path));

	return schema == NULL ? "" : schema;
}

/* An object that is to be created is looked for in one schema alone. */
static List *
new_name(List *names)
{
	if (list_length(names) > 1)
		return names;
	return lcons(makeString(schema_for_new()), list_copy(names));
}

static Oid
name_relation(Naming *naming, RangeVar *relation)
{
	Oid			relid = RangeVarGetRelid(relation, NoLock, true);

	add_by_name(naming, (ObjectAddress) {RelationRelationId, relid, 0}, spelling_of_relation(relation));
	return relid;
}

static void
name_new_relation(Naming *naming, RangeVar *relation)
{
	RangeVar   *qualified = copyObject(relation);

	if (relation->schemaname == NULL)
		qualified->schemaname =
			relation->relpersistence == RELPERSISTENCE_TEMP ? "pg_temp" : schema_for_new();
	/* Where this is a contradiction, the server will say so. */
	qualified->relpersistence = RELPERSISTENCE_PERMANENT;
	name_relation(naming, qualified);
}

static void
name_column(Naming *naming, RangeVar *relation, char *column)
{
	Oid			relid = RangeVarGetRelid(relation, NoLock, true);
	AttrNumber	number = OidIsValid(relid) ? get_attnum(relid, column) : InvalidAttrNumber;

	if (number == InvalidAttrNumber)
		relid = InvalidOid;
	add_part(naming, (ObjectAddress) {RelationRelationId, relid, number}, "table column", relation, column);
}

static ObjectAddress
address_of(ObjectType type, Node *object)
{
	Relation	relation = NULL;
	ObjectAddress address = get_object_address(type, object, &relation, AccessShareLock, true);

	if (relation != NULL)
		relation_close(relation, NoLock);
	return address;
}

static void
name_part(Naming *naming, ObjectType type, RangeVar *relation, char *name)
{
	List	   *names = lappend(spelling_of_relation(relation), makeString(name));

	if (type == OBJECT_COLUMN || type == OBJECT_ATTRIBUTE)
		name_column(naming, relation, name);
	else
		add_part(naming, address_of(type, (Node *) names),
				 type == OBJECT_TABCONSTRAINT ? "table constraint" : type == OBJECT_TRIGGER ? "trigger" :
				 type == OBJECT_RULE ? "rule" : "policy", relation, name);
}

static void
name_object(Naming *naming, ObjectType type, Node *object)
{
	switch (type)
	{
		case OBJECT_INDEX:
		case OBJECT_TABLE:
		case OBJECT_SEQUENCE:
		case OBJECT_VIEW:
		case OBJECT_MATVIEW:
		case OBJECT_FOREIGN_TABLE:
			name_relation(naming, makeRangeVarFromNameList((List *) object));
			return;
		case OBJECT_COLUMN:
		case OBJECT_TABCONSTRAINT:
		case OBJECT_TRIGGER:
		case OBJECT_RULE:
		case OBJECT_POLICY:
			{
				List	   *names = list_copy((List *) object);
				char	   *part = strVal(llast(names));

				names = list_truncate(names, list_length(names) - 1);
				name_part(naming, type, makeRangeVarFromNameList(names), part);
				return;
			}
		case OBJECT_TYPE:
		case OBJECT_DOMAIN:
			/* RENAME, SET SCHEMA and OWNER TO have a list, DROP and COMMENT a type. */
			if (IsA(object, List))
				object = (Node *) makeTypeNameFromNameList((List *) object);
			break;
		default:
			break;
	}
	add_by_name(naming, address_of(type, object), spelling(object));
}

static bool
is_relation(ObjectType type)
{
	return type == OBJECT_TABLE || type == OBJECT_INDEX || type == OBJECT_SEQUENCE || type == OBJECT_VIEW ||
		type == OBJECT_MATVIEW || type == OBJECT_FOREIGN_TABLE || type == OBJECT_TYPE;
}

/* RENAME, SET SCHEMA, OWNER TO and DEPENDS ON have the same forms. */
static void
name_altered(Naming *naming, ObjectType type, RangeVar *relation, Node *object, char *part)
{
	if (relation != NULL && part != NULL && !is_relation(type))
		name_part(naming, type, relation, part);
	else if (relation != NULL)
		name_relation(naming, relation);
	else if (object != NULL && type == OBJECT_DOMCONSTRAINT)
		name_object(naming, type,
					(Node *) list_make2(makeTypeNameFromNameList((List *) object), makeString(part)));
	else if (object != NULL)
		name_object(naming, type, object);
	else if (part != NULL)
		name_object(naming, type, (Node *) makeString(part));
}

static void
name_dropped(Naming *naming, DropStmt *drop)
{
	ListCell   *cell;

	naming->if_exists = drop->missing_ok;
	naming->behavior = drop->behavior == DROP_CASCADE ? "cascade" : "restrict";
	foreach(cell, drop->objects)
		name_object(naming, drop->removeType, lfirst(cell));
}

static void
name_subscription(Naming *naming, DropSubscriptionStmt *drop)
{
	naming->if_exists = drop->missing_ok;
	naming->behavior = drop->behavior == DROP_CASCADE ? "cascade" : "restrict";
	name_object(naming, OBJECT_SUBSCRIPTION, (Node *) makeString(drop->subname));
}

/* The columns and constraints that go; where none does, the table. */
static void
name_in_alter_table(Naming *naming, AlterTableStmt *alter)
{
	ListCell   *cell;

	foreach(cell, alter->cmds)
	{
		AlterTableCmd *part = lfirst_node(AlterTableCmd, cell);

		if (part->subtype != AT_DropColumn && part->subtype != AT_DropConstraint)
			continue;
		naming->if_exists = part->missing_ok;
		naming->behavior = part->behavior == DROP_CASCADE ? "cascade" : "restrict";
		name_part(naming, part->subtype == AT_DropColumn ? OBJECT_COLUMN : OBJECT_TABCONSTRAINT,
				  alter->relation, part->name);
	}
	if (naming->targets != NIL)
		return;
	naming->if_exists = alter->missing_ok;
	name_relation(naming, alter->relation);
	foreach(cell, alter->cmds)
	{
		AlterTableCmd *part = lfirst_node(AlterTableCmd, cell);

		if (part->subtype == AT_AttachPartition || part->subtype == AT_DetachPartition)
			name_relation(naming, castNode(PartitionCmd, part->def)->name);
	}
}

static void
name_function(Naming *naming, CreateFunctionStmt *create)
{
	ObjectWithArgs *function = makeNode(ObjectWithArgs);
	ListCell   *cell;

	function->objname = new_name(create->funcname);
	foreach(cell, create->parameters)
	{
		FunctionParameter *parameter = lfirst_node(FunctionParameter, cell);

		if (parameter->mode != FUNC_PARAM_TABLE &&
			(parameter->mode != FUNC_PARAM_OUT || create->is_procedure))
			function->objargs = lappend(function->objargs, parameter->argType);
	}
	name_object(naming, OBJECT_ROUTINE, (Node *) function);
}

static void
name_new_type(Naming *naming, ObjectType type, List *names)
{
	name_object(naming, type, (Node *) makeTypeNameFromNameList(new_name(names)));
}

/* CREATE of what is in a schema, or on a table. Whether it does something. */
static bool
name_created(Naming *naming, Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_CreateStmt:
		case T_CreateForeignTableStmt:
			name_new_relation(naming, ((CreateStmt *) parsetree)->relation);
			return true;
		case T_CreateTableAsStmt:
			name_new_relation(naming, castNode(CreateTableAsStmt, parsetree)->into->rel);
			return true;
		case T_ViewStmt:
			name_new_relation(naming, castNode(ViewStmt, parsetree)->view);
			return true;
		case T_CreateSeqStmt:
			name_new_relation(naming, castNode(CreateSeqStmt, parsetree)->sequence);
			return true;
		case T_CompositeTypeStmt:
			name_new_relation(naming, castNode(CompositeTypeStmt, parsetree)->typevar);
			return true;
		case T_CreateEnumStmt:
			name_new_type(naming, OBJECT_TYPE, castNode(CreateEnumStmt, parsetree)->typeName);
			return true;
		case T_CreateRangeStmt:
			name_new_type(naming, OBJECT_TYPE, castNode(CreateRangeStmt, parsetree)->typeName);
			return true;
		case T_CreateDomainStmt:
			name_new_type(naming, OBJECT_DOMAIN, castNode(CreateDomainStmt, parsetree)->domainname);
			return true;
		case T_CreateFunctionStmt:
			name_function(naming, castNode(CreateFunctionStmt, parsetree));
			return true;
		case T_CreateTrigStmt:
			name_part(naming, OBJECT_TRIGGER, castNode(CreateTrigStmt, parsetree)->relation,
					  castNode(CreateTrigStmt, parsetree)->trigname);
			return true;
		case T_RuleStmt:
			name_part(naming, OBJECT_RULE, castNode(RuleStmt, parsetree)->relation,
					  castNode(RuleStmt, parsetree)->rulename);
			return true;
		case T_CreatePolicyStmt:
			name_part(naming, OBJECT_POLICY, castNode(CreatePolicyStmt, parsetree)->table,
					  castNode(CreatePolicyStmt, parsetree)->policy_name);
			return true;
		case T_CreateExtensionStmt:
			name_object(naming, OBJECT_EXTENSION,
						(Node *) makeString(castNode(CreateExtensionStmt, parsetree)->extname));
			return true;
		default:
			return false;
	}
}

/* CREATE INDEX names both the index, which may be left to the server, and the table. */
static void
name_index(Naming *naming, IndexStmt *create)
{
	Oid			table = name_relation(naming, create->relation);
	RangeVar   *index;

	if (create->idxname == NULL)
		return;
	index = makeRangeVar(create->relation->schemaname, create->idxname, -1);
	if (OidIsValid(table))
		index->schemaname = get_namespace_name_or_temp(get_rel_namespace(table));
	name_relation(naming, index);
}

static void
name_schema(Naming *naming, CreateSchemaStmt *create)
{
	/* Without a name it is that of a role, which may be CURRENT_USER. */
	char	   *name = create->schemaname ? create->schemaname :
		create->authrole->rolename ? create->authrole->rolename : GetUserNameFromId(GetUserId(), false);

	name_object(naming, OBJECT_SCHEMA, (Node *) makeString(name));
}

static bool
name_changed(Naming *naming, Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_AlterTableStmt:
			name_in_alter_table(naming, castNode(AlterTableStmt, parsetree));
			return true;
		case T_RenameStmt:
			{
				RenameStmt *rename = castNode(RenameStmt, parsetree);

				naming->if_exists = rename->missing_ok;
				name_altered(naming, rename->renameType, rename->relation, rename->object, rename->subname);
				return true;
			}
		case T_AlterObjectSchemaStmt:
			{
				AlterObjectSchemaStmt *alter = castNode(AlterObjectSchemaStmt, parsetree);

				naming->if_exists = alter->missing_ok;
				name_altered(naming, alter->objectType, alter->relation, alter->object, NULL);
				return true;
			}
		case T_AlterOwnerStmt:
			{
				AlterOwnerStmt *alter = castNode(AlterOwnerStmt, parsetree);

				name_altered(naming, alter->objectType, alter->relation, alter->object, NULL);
				return true;
			}
		case T_CommentStmt:
			name_object(naming, castNode(CommentStmt, parsetree)->objtype,
						castNode(CommentStmt, parsetree)->object);
			return true;
		case T_SecLabelStmt:
			name_object(naming, castNode(SecLabelStmt, parsetree)->objtype,
						castNode(SecLabelStmt, parsetree)->object);
			return true;
		case T_AlterSeqStmt:
			naming->if_exists = castNode(AlterSeqStmt, parsetree)->missing_ok;
			name_relation(naming, castNode(AlterSeqStmt, parsetree)->sequence);
			return true;
		case T_RefreshMatViewStmt:
			name_relation(naming, castNode(RefreshMatViewStmt, parsetree)->relation);
			return true;
		case T_AlterPolicyStmt:
			name_part(naming, OBJECT_POLICY, castNode(AlterPolicyStmt, parsetree)->table,
					  castNode(AlterPolicyStmt, parsetree)->policy_name);
			return true;
		case T_AlterFunctionStmt:
			name_object(naming, castNode(AlterFunctionStmt, parsetree)->objtype,
						(Node *) castNode(AlterFunctionStmt, parsetree)->func);
			return true;
		case T_AlterEnumStmt:
			name_object(naming, OBJECT_TYPE,
						(Node *) makeTypeNameFromNameList(castNode(AlterEnumStmt, parsetree)->typeName));
			return true;
		case T_AlterExtensionStmt:
			name_object(naming, OBJECT_EXTENSION,
						(Node *) makeString(castNode(AlterExtensionStmt, parsetree)->extname));
			return true;
		default:
			return false;
	}
}

static void
name_in_alter_domain(Naming *naming, AlterDomainStmt *alter)
{
	TypeName   *domain = makeTypeNameFromNameList(alter->typeName);

	if (alter->subtype == 'X')
	{
		naming->if_exists = alter->missing_ok;
		naming->behavior = alter->behavior == DROP_CASCADE ? "cascade" : "restrict";
		name_object(naming, OBJECT_DOMCONSTRAINT, (Node *) list_make2(domain, makeString(alter->name)));
	}
	else
		name_object(naming, OBJECT_DOMAIN, (Node *) domain);
}

static void
find(void *argument)
{
	Naming	   *naming = argument;
	Node	   *parsetree = copyObject(naming->parsetree);

	if (IsA(parsetree, DropStmt))
		name_dropped(naming, castNode(DropStmt, parsetree));
	else if (IsA(parsetree, DropSubscriptionStmt))
		name_subscription(naming, castNode(DropSubscriptionStmt, parsetree));
	else if (IsA(parsetree, IndexStmt))
		name_index(naming, castNode(IndexStmt, parsetree));
	else if (IsA(parsetree, CreateSchemaStmt))
		name_schema(naming, castNode(CreateSchemaStmt, parsetree));
	else if (IsA(parsetree, AlterDomainStmt))
		name_in_alter_domain(naming, castNode(AlterDomainStmt, parsetree));
	else if (!name_created(naming, parsetree))
		(void) name_changed(naming, parsetree);
}

/* A list of Target, in the order of the command. */
List *
named_targets(const StartingCommand *command)
{
	Naming		naming = {command->parsetree, CurrentMemoryContext, NIL, false, NULL};

	as_the_command(command, find, &naming, false);
	return naming.targets;
}
