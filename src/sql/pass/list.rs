//! The list. Its order is that in which a statement goes through it.

use datafusion::sql::planner::SqlToRel;
use sqlparser::ast::Statement;

use super::For::{Both, Reads, Views};
use super::{Pass, Stage, Step, Target, Use};
use crate::error::sqlstate;
use crate::sql::asof::asof_joins;
use crate::sql::binder::{planner, planner_context};
use crate::sql::bounded::Bounded;
use crate::sql::conditions::AnyColumn;
use crate::sql::constant;
use crate::sql::current_watermark::name_watermarks;
use crate::sql::decorrelate::decorrelate;
use crate::sql::depth::limit_depth;
use crate::sql::derived::name_derived;
use crate::sql::desugar::{desugar_expr, desugar_query};
use crate::sql::dml::{assign, fill};
use crate::sql::errors::plan_error;
use crate::sql::frames::plain_offsets;
use crate::sql::group_names::keep_keys_apart;
use crate::sql::group_twice::group_once;
use crate::sql::group_windows::expand_group_windows;
use crate::sql::heights;
use crate::sql::hidden::mark_beside_star;
use crate::sql::lateral::unnest_laterals;
use crate::sql::levels::name_levels;
use crate::sql::lifted::lift_outer_aggregates;
use crate::sql::limit::{fetch_to_limit, order_matters};
use crate::sql::limits::check_select_lists;
use crate::sql::moving::moving_filters;
use crate::sql::names::{name_columns, name_in_expr};
use crate::sql::ordered_input::order_inputs;
use crate::sql::outer_aggregates::inline_outer_aggregates;
use crate::sql::outline::stage;
use crate::sql::parser::{nest_versions, place_clauses};
use crate::sql::prepared::with_values;
use crate::sql::proctime::{at_once, stamp};
use crate::sql::recursion::recursive_queries;
use crate::sql::row_counts::count_limits;
use crate::sql::rules::{self, ForgetProperties, written_out};
use crate::sql::schemas::plain_names;
use crate::sql::scopes::qualify_outer;
use crate::sql::semantics::{normalise_output, rewrite_expr, rewrite_plan};
use crate::sql::set_keys::compute_set_keys;
use crate::sql::set_ops::rewrite_set_operations;
use crate::sql::shadowed::tell_apart;
use crate::sql::signs::separate_signs;
use crate::sql::stars::rows_as_values;
use crate::sql::system;
use crate::sql::ties::{expand_distinct_on, order_limits};
use crate::sql::typed_values::type_values;
use crate::sql::using::expand_using;
use crate::sql::validate::{check_expr, check_plan, check_query};
use crate::sql::visit::walk_mut;
use crate::sql::watch::watch;
use crate::sql::whole_rows::{count_rows, name_rows};
use crate::sql::widths::measured;
use crate::sql::window_ties::order_windows;

/// Every pass.
pub(in crate::sql) static LIST: &[(Stage, &[Pass])] = &[
    (Stage::Parse, PARSE),
    (Stage::Syntax, SYNTAX),
    (Stage::Naming, NAMING),
    (Stage::Repair, REPAIR),
    (Stage::Planning, PLANNING),
    (Stage::Meaning, MEANING),
    (Stage::Assignment, ASSIGNMENT),
    (Stage::Analysis, EXPRESSIONS),
    (Stage::Analysis, rules::ANALYSIS),
    (Stage::Ordering, ORDERING),
    (Stage::Optimisation, rules::LOGICAL),
    (Stage::Completion, COMPLETION),
    (Stage::Execution, EXECUTION),
    (Stage::Physical, AHEAD_OF_PHYSICAL),
    (Stage::Physical, rules::PHYSICAL),
    (Stage::Physical, BEHIND_PHYSICAL),
];

const PARSE: &[Pass] = &[
    Pass {
        name: "limit_depth",
        purpose: Both,
        why: "chains of AND and OR become balanced trees, and what is deep all the same is \
              refused: first, as everything behind it walks the tree on the stack",
        step: Step::Parsed {
            statement: Some(limit_depth::<Statement>),
            query: limit_depth,
            expr: Some(limit_depth),
        },
    },
    Pass {
        name: "place_clauses",
        purpose: Both,
        why: "FETCH FIRST and ROWS FROM, which sqlparser reads as LIMIT and as a call, get their \
              places: definitions are kept as the text of this tree",
        step: Step::Parsed {
            statement: Some(place_clauses),
            query: place_clauses,
            expr: Some(place_clauses),
        },
    },
    Pass {
        name: "separate_signs",
        purpose: Both,
        why: "a sign of a sign gets parentheses: definitions are kept as the text of this tree, \
              where two of them would begin a comment",
        step: Step::Parsed {
            statement: Some(|statement| {
                separate_signs(statement);
                Ok(())
            }),
            query: |query| {
                separate_signs(query);
                Ok(())
            },
            expr: Some(|expr| {
                separate_signs(expr);
                Ok(())
            }),
        },
    },
    Pass {
        name: "nest_versions",
        purpose: Both,
        why: "a table of a moment with an alias goes into a subquery, as its text could not be \
              read again",
        step: Step::Parsed {
            statement: None,
            query: |query| {
                nest_versions(query);
                Ok(())
            },
            expr: None,
        },
    },
];

const SYNTAX: &[Pass] = &[
    Pass {
        name: "names_with_schemas",
        purpose: Both,
        why: "relations that are written with their schemas get one name each, which is how what \
              follows knows the items of FROM",
        step: Step::Syntax {
            query: Some(|query, scope| {
                plain_names(query, &scope.context.settings().session.database)
            }),
            expr: None,
        },
    },
    Pass {
        name: "recursive_queries",
        purpose: Both,
        why: "queries of WITH RECURSIVE that name themselves become calls of functions; early, as \
              what follows takes a name for what is defined ahead of it",
        step: Step::Syntax { query: Some(|query, _| recursive_queries(query)), expr: None },
    },
    Pass {
        name: "rename_shadowed_ctes",
        purpose: Both,
        why: "a WITH query that is called like one around it gets another name: what follows \
              knows queries by their names",
        step: Step::Syntax { query: Some(|query, _| tell_apart(query)), expr: None },
    },
    Pass {
        name: "share_ctes",
        purpose: Both,
        why: "a WITH query or view that is named several times is planned once and read by name, \
              ahead of all that would rewrite it at each place",
        step: Step::Syntax {
            query: Some(|query, scope| scope.context.share_parts(query)),
            expr: None,
        },
    },
    Pass {
        name: "system_catalog",
        purpose: Reads,
        why: "spellings of clients for the system catalog are put as expressions that pass the \
              check of the syntax",
        step: Step::Syntax {
            query: Some(|query, scope| system::rewrite(query, scope.context)),
            expr: None,
        },
    },
    Pass {
        name: "select_in_exists",
        purpose: Both,
        why: "EXISTS of a query that selects nothing gets something to select, which the check of \
              the syntax asks for",
        step: Step::Syntax { query: Some(|query, _| walk_mut(query, &mut AnyColumn)), expr: None },
    },
    Pass {
        name: "check_syntax",
        purpose: Both,
        why: "refuses what is on no allow list; ahead of what puts words of ours into the tree, \
              which no user may write",
        step: Step::Syntax {
            query: Some(|query, _| check_query(query)),
            expr: Some(|expr| check_expr(expr)),
        },
    },
    Pass {
        name: "stars_in_expressions",
        purpose: Both,
        why: "t.* in an expression is the row of the table, and its columns in VALUES and ROW; \
              behind the check of the syntax, as it puts words of ours",
        step: Step::Syntax {
            query: Some(|query, scope| rows_as_values(query, scope.context.catalog())),
            expr: None,
        },
    },
    Pass {
        name: "repeated_group_keys",
        purpose: Both,
        why: "grouping sets with a column twice are written out; the planner wants it once",
        step: Step::Syntax { query: Some(|query, _| group_once(query)), expr: None },
    },
    Pass {
        name: "fetch_to_limit",
        purpose: Both,
        why: "FETCH FIRST becomes LIMIT, which is what follows asks for",
        step: Step::Syntax {
            query: Some(|query, _| {
                fetch_to_limit(query);
                Ok(())
            }),
            expr: None,
        },
    },
    Pass {
        name: "drop_order_of_view",
        purpose: Views,
        why: "an ORDER BY at the top means nothing where rows have no order; behind FETCH, as \
              with a LIMIT it does",
        step: Step::Syntax {
            query: Some(|query, _| {
                if !order_matters(query) {
                    query.order_by = None;
                }
                Ok(())
            }),
            expr: None,
        },
    },
    Pass {
        name: "type_values",
        purpose: Both,
        why: "texts in VALUES take the type of the values above and below them, while they are \
              still literals",
        step: Step::Syntax {
            query: Some(|query, scope| type_values(query, scope.context, scope.parameters)),
            expr: None,
        },
    },
    Pass {
        name: "set_operations",
        purpose: Both,
        why: "INTERSECT and EXCEPT become nodes of ours over a UNION ALL, whose sides the planner \
              gives one type; it would make joins of them, which are wrong with ALL",
        step: Step::Syntax {
            query: Some(|query, _| {
                rewrite_set_operations(query);
                Ok(())
            }),
            expr: None,
        },
    },
    Pass {
        name: "name_derived",
        purpose: Both,
        why: "subqueries in FROM without an alias get one, by which the tables inside of them \
              can't be named; ahead of what looks for names",
        step: Step::Syntax { query: Some(|query, _| name_derived(query)), expr: None },
    },
    Pass {
        name: "expand_using",
        purpose: Both,
        why: "USING and NATURAL get their conditions, and their merged columns what they stand \
              for; last, as it plans the sides of such joins alone",
        step: Step::Syntax {
            query: Some(|query, scope| expand_using(query, scope.context, scope.parameters)),
            expr: None,
        },
    },
];

const NAMING: &[Pass] = &[
    Pass {
        name: "name_columns",
        purpose: Both,
        why: "columns get PostgreSQL's names; ahead of all that changes the expressions which \
              they are called by",
        step: Step::Syntax {
            query: Some(|query, _| {
                name_columns(query);
                Ok(())
            }),
            expr: Some(|expr| {
                name_in_expr(expr);
                Ok(())
            }),
        },
    },
    Pass {
        name: "group_windows",
        purpose: Both,
        why: "windows in GROUP BY become table functions in FROM",
        step: Step::Syntax { query: Some(|query, _| expand_group_windows(query)), expr: None },
    },
    Pass {
        name: "current_watermarks",
        purpose: Both,
        why: "current_watermark(t.ts) gets the names of the relation and the column, as its \
              argument is no value",
        step: Step::Syntax {
            query: Some(|query, scope| name_watermarks(query, scope.context.purpose())),
            expr: None,
        },
    },
    Pass {
        name: "frame_offsets",
        purpose: Both,
        why: "intervals in frames are put as the planner reads them, from the syntax",
        step: Step::Syntax {
            query: Some(|query, _| {
                plain_offsets(query);
                Ok(())
            }),
            expr: None,
        },
    },
    Pass {
        name: "equal_group_keys",
        purpose: Both,
        why: "two keys of grouping sets with one expression are told apart, which the planner \
              would take for one",
        step: Step::Syntax { query: Some(|query, _| keep_keys_apart(query)), expr: None },
    },
    Pass {
        name: "count_whole_rows",
        purpose: Both,
        why: "count(t.*) counts a column that says that the row is there; ahead of what looks \
              for the tables of columns",
        step: Step::Syntax { query: Some(|query, _| count_rows(query)), expr: None },
    },
    Pass {
        name: "order_of_subquery",
        purpose: Both,
        why: "lists of the rows of an ordered subquery take its order, as does a read of nothing \
              else: later it is gone",
        step: Step::Syntax {
            query: Some(|query, scope| order_inputs(query, scope.context.purpose())),
            expr: None,
        },
    },
    Pass {
        name: "qualify_columns",
        purpose: Both,
        why: "columns of outer queries in aggregates get the names of their tables, by which the \
              next two tell whose the aggregate is",
        step: Step::Syntax {
            query: Some(|query, scope| name_levels(query, scope.context.catalog())),
            expr: None,
        },
    },
    Pass {
        name: "inline_outer_aggregates",
        purpose: Both,
        why: "a subquery without FROM around an aggregate of an outer query is its expression",
        step: Step::Syntax { query: Some(|query, _| inline_outer_aggregates(query)), expr: None },
    },
    Pass {
        name: "lift_outer_aggregates",
        purpose: Both,
        why: "aggregates of an outer query in subqueries with FROM are computed in the outer one; \
              those that could be inlined are",
        step: Step::Syntax { query: Some(|query, _| lift_outer_aggregates(query)), expr: None },
    },
    Pass {
        name: "desugar",
        purpose: Both,
        why: "constructs with a syntax of their own become calls of functions; behind the naming, \
              so that columns are called by what was written",
        step: Step::Syntax {
            query: Some(|query, _| desugar_query(query)),
            expr: Some(desugar_expr),
        },
    },
    Pass {
        name: "qualify_outer_columns",
        purpose: Both,
        why: "o.k becomes a column of a table, which the planner would take for a field; behind \
              all that adds tables and columns",
        step: Step::Syntax { query: Some(|query, _| qualify_outer(query)), expr: None },
    },
    Pass {
        name: "cut_deep_expressions",
        purpose: Both,
        why: "deep expressions are marked where they are planned in pieces; last, over the tree \
              that is planned",
        step: Step::Syntax {
            query: Some(|query, _| heights::mark(query)),
            expr: Some(heights::mark),
        },
    },
];

const REPAIR: &[Pass] = &[
    Pass {
        name: "rename_beside_star",
        purpose: Both,
        why: "a column beside * that is called like one of it gets another name: only the planner \
              knows the names of *",
        step: Step::Repair {
            query: |query, error, _| {
                let twice = [sqlstate::AMBIGUOUS_COLUMN, sqlstate::DUPLICATE_COLUMN];
                Ok(twice.contains(&error.sqlstate()) && mark_beside_star(query))
            },
            last: true,
        },
    },
    Pass {
        name: "rows_by_table",
        purpose: Both,
        why: "a name that is no column's is the row of the table of that name: a column goes \
              ahead of it, and only the planner knows that there is none",
        step: Step::Repair {
            query: |query, error, scope| {
                Ok(error.sqlstate() == sqlstate::UNDEFINED_COLUMN
                    && name_rows(query, error, scope.context.catalog())?)
            },
            last: false,
        },
    },
];

const PLANNING: &[Pass] = &[
    Pass {
        name: "sql_to_plan",
        purpose: Both,
        why: "DataFusion's planner, with our operators, types, windows and set operations where \
              it asks for them",
        step: Step::Plan {
            query: |query, scope| {
                scope.context.cancel().check()?;
                let statement = Statement::Query(Box::new(query));
                let planned = stage(|| {
                    let mut parameters = planner_context(scope.parameters);
                    let planner: SqlToRel<'_, _> = planner(scope.context);
                    planner.sql_statement_to_plan_with_context(statement, &mut parameters)
                });
                planned.map_err(plan_error)
            },
            expr: |expr, schema, scope| {
                let planned = stage(|| {
                    let mut parameters = planner_context(scope.parameters);
                    planner(scope.context).sql_to_expr(expr, schema, &mut parameters)
                });
                planned.map_err(plan_error)
            },
        },
    },
    Pass {
        name: "check_select_lists",
        purpose: Both,
        why: "refuses lists that are too long, when * is known and before somebody looks at it",
        step: Step::Planned {
            plan: Some(|plan, _| {
                check_select_lists(&plan)?;
                Ok(plan)
            }),
            expr: None,
        },
    },
    Pass {
        name: "set_keys",
        purpose: Both,
        why: "the keys of grouping sets become columns, ahead of what would rewrite them where a \
              list of sets has no room for their names",
        step: Step::Planned { plan: Some(|plan, _| compute_set_keys(plan)), expr: None },
    },
    Pass {
        name: "unnest_lateral",
        purpose: Both,
        why: "UNNEST of columns beside it is a projection and no join; ahead of what would make a \
              join of it",
        step: Step::Planned {
            plan: Some(|plan, scope| unnest_laterals(plan, scope.context.purpose())),
            expr: None,
        },
    },
    Pass {
        name: "distinct_on",
        purpose: Both,
        why: "DISTINCT ON becomes the first row by number, which has one meaning; ahead of types, \
              which its expressions get with all others",
        step: Step::Planned { plan: Some(|plan, _| expand_distinct_on(plan)), expr: None },
    },
    Pass {
        name: "counts_of_rows",
        purpose: Both,
        why: "LIMIT by a number that is computed numbers the rows, behind DISTINCT ON, which has \
              an order; ahead of types and of what makes joins of subqueries",
        step: Step::Planned { plan: Some(|plan, _| count_limits(plan)), expr: None },
    },
];

const MEANING: &[Pass] = &[
    Pass {
        name: "semantics",
        purpose: Both,
        why: "types of literals, arithmetic, casts and comparisons become PostgreSQL's, ahead of \
              DataFusion's coercion, which would choose others",
        step: Step::Planned {
            plan: Some(|plan, _| rewrite_plan(plan)),
            expr: Some(|expr, schema, _| rewrite_expr(expr, schema)),
        },
    },
    Pass {
        name: "proctime",
        purpose: Both,
        why: "proctime() is a node that stamps rows as they come, and now() in a read; ahead of \
              the optimiser, which may copy expressions but not nodes",
        step: Step::Planned {
            plan: Some(|plan, scope| stamp(plan, scope.context.purpose())),
            expr: Some(|expr, _, _| at_once(expr)),
        },
    },
    Pass {
        name: "asof_joins",
        purpose: Both,
        why: "joins with the nearest row become nodes, by types that are known and ahead of rules, \
              which know no such join",
        step: Step::Planned { plan: Some(|plan, _| asof_joins(plan)), expr: None },
    },
    Pass {
        name: "normalise_types",
        purpose: Both,
        why: "the columns of the result get types that the engine has; those of rows that are \
              written get the table's instead",
        step: Step::Planned {
            plan: Some(|plan, scope| match scope.target {
                None => normalise_output(plan),
                Some(_) => Ok(plan),
            }),
            expr: None,
        },
    },
    Pass {
        name: "decorrelate",
        purpose: Both,
        why: "subqueries become joins, by types that are known and ahead of DataFusion's rules, \
              which lose the NULL of IN",
        step: Step::Planned {
            plan: Some(|plan, scope| decorrelate(plan, scope.context.purpose())),
            expr: None,
        },
    },
];

const ASSIGNMENT: &[Pass] = &[
    Pass {
        name: "assign",
        purpose: Reads,
        why: "columns are cast as PostgreSQL casts in assignments, and literals and parameters \
              take the type of the column that they go to",
        step: Step::Planned {
            plan: Some(|plan, scope| match scope.target {
                Some(Target { relation, first: Some(first), columns, .. }) => {
                    assign(plan, first, relation, columns)
                }
                _ => Ok(plan),
            }),
            expr: None,
        },
    },
    Pass {
        name: "fill_defaults",
        purpose: Reads,
        why: "columns that an INSERT does not name take their DEFAULT, when those that it names \
              have their types",
        step: Step::Planned {
            plan: Some(|plan, scope| match scope.target {
                Some(Target { relation, columns, fills: true, .. }) => {
                    fill(plan, relation, columns, scope.context)
                }
                _ => Ok(plan),
            }),
            expr: None,
        },
    },
];

const EXPRESSIONS: &[Pass] = &[Pass {
    name: "coerce_expression",
    purpose: Both,
    why: "an expression that stands alone (a value, DEFAULT, CHECK) gets what the analyser and the \
          simplifier do to those of plans",
    step: Step::Constant(constant::coerce),
}];

const ORDERING: &[Pass] = &[
    Pass {
        name: "bind_parameters",
        purpose: Reads,
        why: "values take the places of parameters, ahead of the optimiser, which makes use of \
              them",
        step: Step::Planned {
            plan: Some(|plan, scope| with_values(plan, scope.values)),
            expr: None,
        },
    },
    Pass {
        name: "order_limits",
        purpose: Both,
        why: "the ties of LIMIT are broken by the whole row, ahead of rules that take columns away",
        step: Step::Planned {
            plan: Some(|plan, scope| order_limits(plan, scope.context.purpose())),
            expr: None,
        },
    },
    Pass {
        name: "write_out",
        purpose: Both,
        why: "a plan that no rule is to see gets what it can't be run without: functions that \
              DataFusion leaves to its simplifier",
        step: Step::Planned {
            plan: Some(|plan, scope| match scope.context.settings().optimize {
                true => Ok(plan),
                false => written_out(plan).map_err(plan_error),
            }),
            expr: None,
        },
    },
];

const COMPLETION: &[Pass] = &[
    Pass {
        name: "order_windows",
        purpose: Both,
        why: "peers of window functions are told apart by the whole row; behind the rules, which \
              would keep columns for that",
        step: Step::Planned {
            plan: Some(|plan, scope| order_windows(plan, scope.context.purpose())),
            expr: None,
        },
    },
    Pass {
        name: "moving_filters",
        purpose: Views,
        why: "conditions with now() become nodes that follow the clock; behind the rules, so that \
              they stand as far down as other conditions",
        step: Step::Planned { plan: Some(|plan, _| moving_filters(plan)), expr: None },
    },
    Pass {
        name: "check_plan",
        purpose: Both,
        why: "refuses what a view can't keep up to date, and what passed the syntax unseen; last, \
              as it is of what is left",
        step: Step::Planned {
            plan: Some(|plan, scope| {
                check_plan(&plan, scope.context.purpose())?;
                Ok(plan)
            }),
            expr: None,
        },
    },
];

const EXECUTION: &[Pass] = &[
    Pass {
        name: "check_read",
        purpose: Reads,
        why: "refuses what is no read, ahead of its rows: a plan of a view is checked here, too, \
              when it is computed anew",
        step: Step::Bound(|plan, _| {
            check_plan(&plan, crate::sql::binder::Purpose::AdHoc)?;
            Ok(plan)
        }),
    },
    Pass {
        name: "guard_values",
        purpose: Reads,
        why: "what a CASE, AND or OR may not come to is not computed by DataFusion's expressions \
              either; on the way to them",
        step: Step::Bound(|plan, _| crate::sql::batch::guard(plan)),
    },
    Pass {
        name: "executable_nodes",
        purpose: Reads,
        why: "scans get their rows, and nodes of ours become what DataFusion can run; from the \
              leaves, in one walk, as each sees what its inputs have become",
        step: Step::Bound(|plan, binding| binding.executable(plan)),
    },
    Pass {
        name: "time_of_read",
        purpose: Reads,
        why: "now() is the time of the epoch, where the optimiser has left it: in plans of views",
        step: Step::Bound(|plan, binding| binding.tell_time(plan)),
    },
];

const AHEAD_OF_PHYSICAL: &[Pass] = &[Pass {
    name: "forget_properties",
    purpose: Reads,
    why: "the orders of joins, unions and grouping sets, which are not right, are forgotten ahead \
          of the rules that leave out sorts by them",
    step: Step::Physical(Use::Added(|optimize| {
        std::sync::Arc::new(ForgetProperties { everywhere: !optimize })
    })),
}];

const BEHIND_PHYSICAL: &[Pass] = &[
    Pass {
        name: "bounded_memory",
        purpose: Reads,
        why: "operators that could take any amount of memory get ones that take a bounded one; \
              behind the rules, which know their own",
        step: Step::Physical(Use::Added(|_| std::sync::Arc::new(Bounded))),
    },
    Pass {
        name: "measure_rows",
        purpose: Reads,
        why: "the widths of rows are measured where they come in, so that batches of wide ones are \
              made smaller",
        step: Step::Operators(|plan, _, widths| measured(plan, widths)),
    },
    Pass {
        name: "watch_cancel",
        purpose: Reads,
        why: "each operator looks whether its statement was canceled; last, around all that runs",
        step: Step::Operators(|plan, settings, _| watch(plan, &settings.cancel)),
    },
];
