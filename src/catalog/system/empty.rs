//! Tables that describe what is not here: they have columns, so that clients can ask, and no rows.

use super::{Facts, Rows, SystemTable};

const fn table(name: &'static str, columns: &'static str) -> SystemTable {
    SystemTable { schema: "pg_catalog", name, columns, rows: none }
}

const fn information(name: &'static str, columns: &'static str) -> SystemTable {
    SystemTable { schema: "information_schema", name, columns, rows: none }
}

pub(super) fn none(_: &Facts<'_>) -> Rows {
    Vec::new()
}

#[rustfmt::skip]
pub(super) const TABLES: &[SystemTable] = &[
    table("pg_aggregate", "aggfnoid:i aggkind:t aggnumdirectargs:s"),
    table("pg_cast", "oid:i castsource:i casttarget:i castfunc:i castcontext:t castmethod:t"),
    table("pg_collation", "oid:i collname:t collnamespace:i collowner:i collprovider:t \
        collisdeterministic:b collencoding:n collcollate:t collctype:t colliculocale:t \
        collversion:t"),
    table("pg_conversion", "oid:i conname:t connamespace:i conowner:i"),
    table("pg_default_acl", "oid:i defaclrole:i defaclnamespace:i defaclobjtype:t defaclacl:T"),
    table("pg_depend", "classid:i objid:i objsubid:n refclassid:i refobjid:i refobjsubid:n \
        deptype:t"),
    table("pg_enum", "oid:i enumtypid:i enumsortorder:f enumlabel:t"),
    table("pg_event_trigger", "oid:i evtname:t evtevent:t evtowner:i evtfoid:i evtenabled:t \
        evttags:T"),
    table("pg_extension", "oid:i extname:t extowner:i extnamespace:i extrelocatable:b \
        extversion:t extconfig:I extcondition:T"),
    table("pg_foreign_data_wrapper", "oid:i fdwname:t fdwowner:i fdwhandler:i fdwvalidator:i \
        fdwacl:T fdwoptions:T"),
    table("pg_foreign_server", "oid:i srvname:t srvowner:i srvfdw:i srvtype:t srvversion:t \
        srvacl:T srvoptions:T"),
    table("pg_foreign_table", "ftrelid:i ftserver:i ftoptions:T"),
    table("pg_inherits", "inhrelid:i inhparent:i inhseqno:n inhdetachpending:b"),
    table("pg_largeobject_metadata", "oid:i lomowner:i lomacl:T"),
    table("pg_locks", "locktype:t database:i relation:i pid:n mode:t granted:b"),
    table("pg_opclass", "oid:i opcmethod:i opcname:t opcnamespace:i opcowner:i opcfamily:i \
        opcintype:i opcdefault:b opckeytype:i"),
    table("pg_operator", "oid:i oprname:t oprnamespace:i oprowner:i oprkind:t oprcanmerge:b \
        oprcanhash:b oprleft:i oprright:i oprresult:i oprcom:i oprnegate:i oprcode:t"),
    table("pg_opfamily", "oid:i opfmethod:i opfname:t opfnamespace:i opfowner:i"),
    table("pg_partitioned_table", "partrelid:i partstrat:t partnatts:s partdefid:i partattrs:I \
        partclass:I partcollation:I partexprs:t"),
    table("pg_policy", "oid:i polname:t polrelid:i polcmd:t polpermissive:b polroles:I polqual:t \
        polwithcheck:t"),
    table("pg_proc", "oid:i proname:t pronamespace:i proowner:i prolang:i procost:f prorows:f \
        provariadic:i prosupport:t prokind:t prosecdef:b proleakproof:b proisstrict:b \
        proretset:b provolatile:t proparallel:t pronargs:s pronargdefaults:s prorettype:i \
        proargtypes:I proallargtypes:I proargmodes:T proargnames:T proargdefaults:t \
        protrftypes:I prosrc:t probin:t prosqlbody:t proconfig:T proacl:T"),
    table("pg_publication", "oid:i pubname:t pubowner:i puballtables:b pubinsert:b pubupdate:b \
        pubdelete:b pubtruncate:b pubviaroot:b"),
    table("pg_publication_namespace", "oid:i pnpubid:i pnnspid:i"),
    table("pg_publication_rel", "oid:i prpubid:i prrelid:i prqual:t prattrs:I"),
    table("pg_publication_tables", "pubname:t schemaname:t tablename:t attnames:T rowfilter:t"),
    table("pg_range", "rngtypid:i rngsubtype:i rngmultitypid:i rngcollation:i rngsubopc:i \
        rngcanonical:t rngsubdiff:t"),
    table("pg_rewrite", "oid:i rulename:t ev_class:i ev_type:t ev_enabled:t is_instead:b \
        ev_qual:t ev_action:t"),
    table("pg_seclabel", "objoid:i classoid:i objsubid:n provider:t label:t"),
    table("pg_shdescription", "objoid:i classoid:i description:t"),
    table("pg_shdepend", "dbid:i classid:i objid:i objsubid:n refclassid:i refobjid:i deptype:t"),
    table("pg_stat_activity", "datid:i datname:t pid:n usesysid:i usename:t application_name:t \
        client_addr:t state:t query:t backend_type:t"),
    table("pg_stat_user_tables", "relid:i schemaname:t relname:t seq_scan:i idx_scan:i \
        n_live_tup:i n_dead_tup:i"),
    table("pg_statistic_ext", "oid:i stxrelid:i stxname:t stxnamespace:i stxowner:i \
        stxstattarget:n stxkeys:I stxkind:T stxexprs:t"),
    table("pg_stats", "schemaname:t tablename:t attname:t inherited:b null_frac:f avg_width:n \
        n_distinct:f"),
    table("pg_subscription", "oid:i subdbid:i subname:t subowner:i subenabled:b \
        subpublications:T"),
    table("pg_trigger", "oid:i tgrelid:i tgparentid:i tgname:t tgfoid:i tgtype:s tgenabled:t \
        tgisinternal:b tgconstrrelid:i tgconstrindid:i tgconstraint:i tgdeferrable:b \
        tginitdeferred:b tgnargs:s tgattr:I tgargs:t tgqual:t tgoldtable:t tgnewtable:t"),
    table("pg_ts_config", "oid:i cfgname:t cfgnamespace:i cfgowner:i cfgparser:i"),
    table("pg_ts_dict", "oid:i dictname:t dictnamespace:i dictowner:i dicttemplate:i"),
    table("pg_user_mapping", "oid:i umuser:i umserver:i umoptions:T"),
    information("referential_constraints", "constraint_catalog:t constraint_schema:t \
        constraint_name:t unique_constraint_catalog:t unique_constraint_schema:t \
        unique_constraint_name:t match_option:t update_rule:t delete_rule:t"),
    information("routines", "specific_catalog:t specific_schema:t specific_name:t \
        routine_catalog:t routine_schema:t routine_name:t routine_type:t data_type:t \
        routine_definition:t"),
    information("parameters", "specific_catalog:t specific_schema:t specific_name:t \
        ordinal_position:n parameter_mode:t parameter_name:t data_type:t"),
    information("triggers", "trigger_catalog:t trigger_schema:t trigger_name:t \
        event_manipulation:t event_object_table:t action_statement:t action_timing:t"),
    information("table_privileges", "grantor:t grantee:t table_catalog:t table_schema:t \
        table_name:t privilege_type:t is_grantable:t with_hierarchy:t"),
    information("domains", "domain_catalog:t domain_schema:t domain_name:t data_type:t"),
    information("element_types", "object_catalog:t object_schema:t object_name:t object_type:t \
        collection_type_identifier:t data_type:t"),
];
