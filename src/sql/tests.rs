//! Binding and the batch half together: types and names of results, what is refused, values.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;

use super::statement::Statement;
use super::{
    Bound, BoundStatement, InsertRows, Purpose, Settings, batch, bind_delete, bind_insert,
    bind_query, bind_update, bind_view, bind_watermark, parse, prepare,
};
use crate::catalog::access::Acl;
use crate::catalog::{Catalog, Comments, Relation, RelationKind};
use crate::delta::text::{display_value, pg_type_declared};
use crate::error::{Error, Result};

fn settings() -> Settings {
    Settings::at("2024-05-06T07:08:09Z".parse::<DateTime<Utc>>().expect("a time"))
}

/// A catalog of relations given as column lists.
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let table = RelationKind::Table { append_only: false };
    let columns = "b smallint, a int, id bigint, n numeric, p numeric(10,2), r real, d double
         precision, s text, ts timestamp, tz timestamptz, day date, iv interval, ok boolean";
    add(&mut catalog, "t", table, columns, None);
    add(&mut catalog, "u", table, "id bigint, name text NOT NULL, a int", None);
    add(&mut catalog, "log", RelationKind::Table { append_only: true }, "a int", None);
    add(&mut catalog, "src", RelationKind::Source, "a int, ts timestamp", None);
    let query = "SELECT id, a + 1 AS next FROM t WHERE a > 0";
    add(&mut catalog, "v", RelationKind::View, "id bigint, plus int", Some(query));
    catalog
}

fn add(catalog: &mut Catalog, name: &str, kind: RelationKind, columns: &str, query: Option<&str>) {
    let text = format!("CREATE TABLE x ({columns})");
    let Statement::CreateTable(t) = statement(&text) else { panic!("{text}") };
    let fields: Vec<_> = t
        .columns
        .iter()
        .map(|c| arrow::datatypes::Field::new(&c.name, c.data_type.clone(), c.nullable))
        .collect();
    let id = catalog.allocate();
    let relation = Relation {
        id,
        name: name.into(),
        kind,
        schema: Arc::new(Schema::new(fields)),
        key: Vec::new(),
        watermark: None,
        rules: crate::catalog::WriteRules::default(),
        connector: None,
        definition: String::new(),
        query: query.map(Into::into),
        zone: None,
        sequence: None,
        depends_on: Vec::new(),
        acl: Acl::default(),
        comments: Comments::new(),
    };
    catalog.add(relation).expect("the name is free");
}

fn statement(text: &str) -> Statement {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).remove(0).statement
}

fn bind(text: &str, purpose: Purpose) -> Result<Bound> {
    match statement(text) {
        Statement::Query(query) => bind_query(&query, &catalog(), purpose, &settings()),
        other => panic!("{other:?}"),
    }
}

/// What went wrong in a table of cases, reported together.
#[derive(Default)]
struct Report(Vec<String>);

impl Report {
    fn same(&mut self, case: &str, found: &str, expected: &str) {
        if found != expected {
            self.0.push(format!("{case}\n  found    {found}\n  expected {expected}"));
        }
    }

    /// An error with a code and with a text somewhere in its message.
    fn error<T: std::fmt::Debug>(
        &mut self,
        case: &str,
        found: Result<T>,
        sqlstate: &str,
        message: &str,
    ) {
        match found {
            Err(e) if e.sqlstate() == sqlstate && e.message().contains(message) => {}
            Err(e) => {
                self.0.push(format!(
                    "{case}\n  found {} {e}, expected {sqlstate} {message}",
                    e.sqlstate()
                ));
            }
            Ok(_) => self.0.push(format!("{case}\n  no error, expected {sqlstate} {message}")),
        }
    }

    fn finish(self) {
        assert!(self.0.is_empty(), "\n{}\n", self.0.join("\n"));
    }
}

fn shown<T>(result: Result<T>, show: impl FnOnce(T) -> String) -> String {
    result.map_or_else(|e| format!("{} {e} {:?}", e.sqlstate(), e.detail()), show)
}

/// `name type, name type, ..` of a query's result.
fn columns(bound: &Bound) -> String {
    let shown: Vec<_> = bound
        .fields
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), pg_type_declared(f.data_type())))
        .collect();
    for (field, planned) in bound.fields.fields().iter().zip(bound.plan.schema().fields()) {
        assert_eq!(field.data_type(), planned.data_type(), "{}", field.name());
    }
    shown.join(", ")
}

/// Runs a plan over relations filled by INSERT statements; rows as `a|b`, NULL empty.
fn run_plan(plan: &LogicalPlan, inserts: &[&str]) -> Result<Vec<String>> {
    let catalog = catalog();
    let mut rows = std::collections::BTreeMap::new();
    for text in inserts {
        let Statement::Insert(insert) = statement(text) else { panic!("{text}") };
        let bound = bind_insert(&insert, &catalog, &settings())?;
        let batches = match bound.rows {
            InsertRows::Values(batch) => vec![batch],
            InsertRows::Query(bound) => run(&bound.plan, &catalog, &rows)?,
        };
        rows.entry(bound.relation.id).or_insert_with(Vec::new).extend(batches);
    }
    let batches = run(plan, &catalog, &rows)?;
    let mut out = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let values: Vec<_> =
                batch.columns().iter().map(|c| display_value(c, row).unwrap_or_default()).collect();
            out.push(values.join("|"));
        }
    }
    Ok(out)
}

type Rows = std::collections::BTreeMap<crate::catalog::RelationId, Vec<RecordBatch>>;

fn run(plan: &LogicalPlan, catalog: &Catalog, rows: &Rows) -> Result<Vec<RecordBatch>> {
    let provide = |id| {
        let relation = catalog.by_id(id).ok_or_else(|| Error::internal("no such relation"))?;
        batch::memory(&relation.schema, rows.get(&id).cloned().unwrap_or_default())
    };
    batch::execute_collect(plan, &provide, &settings())
}

const DATA: &[&str] = &[
    "INSERT INTO t (id, a, s, p, d, ts) VALUES (1, 10, 'x', 1.50, 0.5, '2024-01-01 00:00:10'),
       (2, 20, 'y', 2.25, 1e20, '2024-01-01 00:01:10'), (3, NULL, 'x', NULL, -0.5, NULL)",
    "INSERT INTO u VALUES (1, 'one', 10), (3, 'three', 0), (4, 'four', 2147483647)",
];

fn ask(text: &str) -> Result<Vec<String>> {
    run_plan(&bind(text, Purpose::AdHoc)?.plan, DATA)
}

#[test]
fn results_have_postgresqls_types_and_names() {
    let mut report = Report::default();
    for (text, expected) in [
        (
            "SELECT 1, 3000000000, 1.5, 'x', true, NULL",
            "?column? integer, ?column? bigint, ?column? numeric(2,1), ?column? text, bool \
             boolean, ?column? text",
        ),
        (
            "SELECT a + 1, b + 1, id + a, a / 2, -a FROM t",
            "?column? integer, ?column? integer, ?column? bigint, ?column? integer, ?column? \
             integer",
        ),
        (
            "SELECT b + b, r + r, r + a, d * 2, n * a, p + 1 FROM t",
            "?column? smallint, ?column? real, ?column? double precision, ?column? double \
             precision, ?column? numeric, ?column? numeric(13,2)",
        ),
        (
            "SELECT n * n, n / n, p / 3, 0.908 * id FROM t",
            "?column? numeric(38,18), ?column? numeric, ?column? numeric, ?column? numeric(22,3)",
        ),
        (
            "SELECT sum(b), sum(a), sum(id), sum(n), sum(p), sum(r), sum(d) FROM t",
            "sum bigint, sum bigint, sum numeric(38,0), sum numeric, sum numeric(38,2), sum \
             real, sum double precision",
        ),
        (
            "SELECT avg(b), avg(id), avg(p), avg(r), avg(d), count(*), count(a) FROM t",
            "avg numeric, avg numeric, avg numeric, avg double precision, avg double \
             precision, count bigint, count bigint",
        ),
        (
            "SELECT min(s), max(ts) AS latest, Max(a) FROM t",
            "min text, latest timestamp without time zone, max integer",
        ),
        ("SELECT t.a, \"id\", s AS \"S\", A FROM t", "a integer, id bigint, S text, a integer"),
        (
            "SELECT a::text, CAST(s AS int), upper(s), CASE WHEN ok THEN 1 ELSE a END, \
             '1'::bigint FROM t",
            "a text, s integer, upper text, a integer, int8 bigint",
        ),
        (
            "SELECT ts - ts, ts + INTERVAL '1 day', day - day, day + 1, day + iv, tz - iv, iv \
             * 2 FROM t",
            "?column? interval, ?column? timestamp without time zone, ?column? integer, \
             ?column? date, ?column? timestamp without time zone, ?column? timestamp with time \
             zone, ?column? interval",
        ),
        (
            "SELECT date_trunc('minute', ts), coalesce(a, 0), extract(year FROM ts), \
             substring(s FROM 1 FOR 2) FROM t",
            "date_trunc timestamp without time zone, coalesce integer, extract numeric, \
             substring text",
        ),
        (
            "SELECT now(), current_date, TIMESTAMP '2024-01-01', DATE '2024-01-01'",
            "now timestamp with time zone, current_date date, timestamp timestamp without time \
             zone, date date",
        ),
        ("VALUES (1, 'a'), (2.5, NULL)", "column1 numeric(11,1), column2 text"),
        ("SELECT a FROM t UNION ALL SELECT id FROM t", "a bigint"),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", "row_number bigint"),
        ("TABLE u", "id bigint, name text, a integer"),
        ("SELECT * FROM v", "id bigint, plus integer"),
    ] {
        report.same(text, &shown(bind(text, Purpose::AdHoc), |b| columns(&b)), expected);
    }
    report.finish();
}

const ANSWERS: &[(&str, &str)] = &[
    ("SELECT DISTINCT upper(s) FROM t ORDER BY upper(s)", "X Y"),
    ("SELECT coalesce(ts, '2024-02-02') FROM t WHERE id = 3", "2024-02-02 00:00:00"),
    (
        "SELECT coalesce(p, 0), nullif(a, 10), greatest(a, 15), least(a, '3') FROM t WHERE \
         id = 1",
        "1.50||15|3",
    ),
    (
        "SELECT CASE a WHEN '10' THEN ts ELSE '2024-02-02' END FROM t WHERE id < 3 ORDER \
         BY id",
        "2024-01-01 00:00:10 2024-02-02 00:00:00",
    ),
    (
        "SELECT round(2.5), round(1.005, 2), round(2.5::float), trunc(-1.57, 1), \
         ceil(1.2), floor(-1.5), round(7)",
        "3|1.01|2|-1.5|2|-2|7",
    ),
    (
        "SELECT mod(7, 3), power(2, -1), 2 ^ 3, extract(second FROM TIMESTAMP '2024-01-01 \
         00:00:01.5')",
        "1|0.5|8|1.5",
    ),
    (
        "SELECT to_char(ts, 'YYYY-MM-DD HH24:MI:SS'), date_part('dow', ts) FROM t WHERE id \
         = 1",
        "2024-01-01 00:00:10|1",
    ),
    (
        "SELECT ts FROM t WHERE id = 1 UNION ALL SELECT '2023-01-01' ORDER BY 1",
        "2023-01-01 00:00:00 2024-01-01 00:00:10",
    ),
    (
        "SELECT id, row_number() OVER (ORDER BY id DESC), lag(a) OVER (ORDER BY id) FROM t \
         ORDER BY id",
        "1|3| 2|2|10 3|1|20",
    ),
    (
        "SELECT current_timestamp > '2024-01-01', now() - INTERVAL '1 day'",
        "t|2024-05-05 07:08:09+00",
    ),
    (
        "SELECT (SELECT name FROM u WHERE u.id = 1), array_agg(a ORDER BY id) FROM t",
        "one|{10,20,NULL}",
    ),
    (
        "SELECT (s, a) = ('x', 10), 1 = ANY(ARRAY[1, 2]), 'ä' > 'z', 'a' < 'B' FROM t \
         WHERE id = 1",
        "t|t|t|f",
    ),
    ("SELECT id, a FROM t ORDER BY a", "1|10 2|20 3|"),
    ("SELECT sum(a), avg(a), count(a), sum(p), avg(p) FROM t", "30|15|2|3.75|1.875"),
    ("SELECT sum(d), max(d), min(d) FROM t", "1e+20|1e+20|-0.5"),
    ("SELECT s, count(*) FROM t GROUP BY s ORDER BY s", "x|2 y|1"),
    (
        "SELECT s, count(*) FILTER (WHERE a > 5), sum(DISTINCT a) FROM t GROUP BY s ORDER BY s",
        "x|1|10 y|1|20",
    ),
    (
        "SELECT 7 / 2, -7 / 2, 7 % 3, -7 % 3, 7.0 / 2, 1 / 3.0, 2 * 3.50",
        "3|-3|1|-1|3.5|0.3333333333|7.00",
    ),
    (
        "SELECT 2.5::int, 3.5::int, (-2.5)::int, 2.5::double precision::int, 0.5::float::int",
        "3|4|-3|2|0",
    ),
    ("SELECT 1.005::numeric(5,2), '12.345'::numeric(5,1), 10::numeric(5,2)", "1.01|12.3|10.00"),
    (
        "SELECT true::text, 1.50::text, 1e20::float::text, TIMESTAMP '2024-01-01 10:00'::text",
        "true|1.50|1e+20|2024-01-01 10:00:00",
    ),
    (
        "SELECT 'a' || 1 || true || 0.5::float, concat('x', 1.0, DATE '2024-01-01')",
        "a1true0.5|x1.02024-01-01",
    ),
    (
        "SELECT DATE '2024-03-01' - DATE '2024-02-01', TIMESTAMP '2024-01-03' - TIMESTAMP \
         '2024-01-01 12:00'",
        "29|1 day 12:00:00",
    ),
    (
        "SELECT DATE '2024-01-31' + 1, TIMESTAMP '2024-01-31' + INTERVAL '1 month', \
         INTERVAL '1 day' * 1.5",
        "2024-02-01|2024-02-29 00:00:00|1 day 12:00:00",
    ),
    ("SELECT id FROM t WHERE ts < '2024-01-01 00:01:00'", "1"),
    ("SELECT id FROM t WHERE a = '20'", "2"),
    ("SELECT id FROM t WHERE id IN ('1', '3') ORDER BY id", "1 3"),
    ("SELECT id FROM t WHERE a BETWEEN '5' AND 15", "1"),
    ("SELECT id FROM t WHERE a <> 10 AND 100 / (a - 10) > 1 ORDER BY id", "2"),
    ("SELECT t.id, name FROM t JOIN u ON t.id = u.id ORDER BY 1", "1|one 3|three"),
    ("SELECT t.id, u.id FROM t FULL JOIN u USING (id) ORDER BY 1, 2", "1|1 2| 3|3 |4"),
    ("SELECT id FROM t WHERE id NOT IN (SELECT id FROM u)", "2"),
    ("SELECT id, (SELECT count(*) FROM u WHERE u.id = t.id) FROM t ORDER BY id", "1|1 2|0 3|1"),
    ("SELECT id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)", "1"),
    ("SELECT DISTINCT s FROM t ORDER BY s", "x y"),
    ("SELECT DISTINCT ON (s) s, id FROM t ORDER BY s, id DESC", "x|3 y|2"),
    ("SELECT id, sum(a) OVER (ORDER BY id ROWS 1 PRECEDING) FROM t", "1|10 2|30 3|20"),
    ("SELECT id FROM t EXCEPT SELECT id FROM u ORDER BY 1", "2"),
    ("SELECT s FROM t UNION SELECT name FROM u ORDER BY 1 LIMIT 3", "four one three"),
    ("WITH q AS (SELECT a * 2 AS x FROM t) SELECT x + 1 FROM q WHERE x > 30", "41"),
    ("SELECT * FROM v ORDER BY id", "1|11 2|21"),
    ("SELECT a, a, a + 1, a + 2 FROM t WHERE id = 1", "10|10|11|12"),
    ("SELECT g FROM generate_series(1, 3) AS g", "1 2 3"),
    ("SELECT now(), now() = now()", "2024-05-06 07:08:09+00|t"),
    ("SELECT max(s), min(s), max(name) FROM t, u", "y|x|three"),
    ("SELECT count(*) FROM t WHERE s LIKE 'x%' AND NOT a IS NULL", "1"),
    (
        "SELECT window_start, window_end, count(*) FROM tumble(t, ts, INTERVAL '1 minute') \
         GROUP BY window_start, window_end ORDER BY 1",
        "2024-01-01 00:00:00|2024-01-01 00:01:00|1 2024-01-01 00:01:00|2024-01-01 00:02:00|1",
    ),
    (
        "SELECT id, window_time FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' \
         MINUTE)) ORDER BY id",
        "1|2024-01-01 00:09:59.999 2|2024-01-01 00:09:59.999",
    ),
    (
        "SELECT w.id FROM tumble((SELECT id, ts FROM t WHERE a > 10), ts, INTERVAL '1 \
         minute', INTERVAL '5 seconds') w WHERE window_start = '2024-01-01 00:01:05'",
        "2",
    ),
];

#[test]
fn queries_give_postgresqls_answers() {
    let mut report = Report::default();
    for (text, expected) in ANSWERS {
        report.same(text, &shown(ask(text), |rows| rows.join(" ")), expected);
    }
    report.finish();
}

#[test]
fn values_that_fail_are_errors() {
    let mut report = Report::default();
    for (text, sqlstate, message) in [
        ("SELECT a + 1 FROM u WHERE id = 4", "22003", "integer out of range"),
        ("SELECT 2147483647 + 1", "22003", "integer out of range"),
        ("SELECT 9223372036854775807 + 1", "22003", "bigint out of range"),
        ("SELECT 32767::smallint + 1::smallint", "22003", "smallint out of range"),
        ("SELECT -(-2147483648)", "22003", "integer out of range"),
        ("SELECT 1 / 0", "22012", "division by zero"),
        ("SELECT 1.0 / 0", "22012", "division by zero"),
        ("SELECT 1::float / 0", "22012", "division by zero"),
        ("SELECT 1e200::float * 1e200::float", "22003", "value out of range: overflow"),
        ("SELECT 'x'::int", "22P02", "invalid input syntax for type integer: \"x\""),
        ("SELECT s::int FROM t", "22P02", "invalid input syntax for type integer: \"x\""),
        ("SELECT 3000000000::int", "22003", "integer out of range"),
        ("SELECT 12345::numeric(4,2)", "22003", "numeric field overflow"),
        (
            "SELECT '2024-02-30'::date",
            "22008",
            "date/time field value out of range: \"2024-02-30\"",
        ),
    ] {
        report.error(text, ask(text), sqlstate, message);
    }
    report.finish();
}

const MISFITS: &[(&str, &str, &str)] = &[
    ("SELECT coalesce(s, 1) FROM t", "42804", "COALESCE types text and integer cannot be matched"),
    (
        "SELECT ts FROM t UNION ALL SELECT s FROM t",
        "42804",
        "UNION types timestamp without time zone and text cannot be matched",
    ),
    ("SELECT * FROM t JOIN u ON t.s = u.id", "42883", "operator does not exist: text = bigint"),
    (
        "SELECT id FROM t WHERE s IN (SELECT id FROM u)",
        "42883",
        "operator does not exist: text = bigint",
    ),
    ("SELECT upper(a) FROM t", "42883", "function upper(integer) does not exist"),
    ("SELECT (SELECT name FROM u)", "21000", "more than one row returned by a subquery"),
    ("SELECT $1::int", "42P02", "there is no parameter $1"),
    ("SELECT * FROM nothing", "42P01", "relation \"nothing\" does not exist"),
    ("SELECT x FROM t", "42703", "column \"x\" does not exist"),
    ("SELECT t.x FROM t", "42703", "column t.x does not exist"),
    ("SELECT q.x FROM t", "42P01", "missing FROM-clause entry for table \"q\""),
    ("SELECT nofunc(a) FROM t", "42883", "function nofunc(integer) does not exist"),
    ("SELECT sum(s) FROM t", "42883", "function sum(text) does not exist"),
    ("SELECT id FROM t, u", "42702", "column reference \"id\" is ambiguous"),
    ("SELECT a, count(*) FROM t", "42803", "must appear in the GROUP BY clause"),
    ("SELECT s + 1 FROM t", "42883", "operator does not exist: text + integer"),
    ("SELECT id FROM t WHERE s = 1", "42883", "operator does not exist: text = integer"),
    ("SELECT id FROM t WHERE a = 'x'", "22P02", "invalid input syntax for type integer: \"x\""),
    ("SELECT id FROM t WHERE a", "42804", "boolean"),
    ("SELECT day::int FROM t", "42846", "cannot cast type date to integer"),
    ("SELECT a FROM t UNION ALL SELECT a, b FROM t", "42601", "same number of columns"),
    ("SELECT * FROM src", "42809", "source \"src\" stores no rows"),
    ("SELECT * FROM t FOR SYSTEM_TIME AS OF now()", "0A000", "FOR SYSTEM_TIME AS OF"),
    (
        "SELECT * FROM t JOIN u FOR SYSTEM_TIME AS OF t.ts AS x ON t.id = x.id",
        "42P16",
        "FOR SYSTEM_TIME AS OF a time of its rows needs a watermark on \"u\"",
    ),
    ("SELECT * FROM hop(t, ts, INTERVAL '1 minute')", "42883", "wrong arguments for hop"),
    (
        "SELECT * FROM TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))",
        "42883",
        "wrong arguments for cumulate",
    ),
    ("SELECT * FROM hop(t, ts, INTERVAL '1 day', INTERVAL '1 month')", "0A000", "months"),
    ("SELECT * FROM tumble(t, ts, INTERVAL '0 seconds')", "22023", "greater than zero"),
    ("SELECT * FROM tumble(t, a, INTERVAL '1 minute')", "42804", "must be a timestamp"),
    ("SELECT a FROM t FOR UPDATE", "0A000", "FOR UPDATE"),
];

#[test]
fn names_and_types_that_do_not_fit_have_their_codes() {
    let mut report = Report::default();
    for (text, sqlstate, message) in MISFITS {
        report.error(text, ask(text), sqlstate, message);
    }
    report.finish();
    let e = bind("SELECT id,\n  wrong FROM t", Purpose::AdHoc).expect_err("no such column");
    assert_eq!(e.position(), Some(14));
    let e = bind("SELECT id, wrong FROM t", Purpose::AdHoc).expect_err("no such column");
    assert_eq!(e.position(), Some(12));
}

fn kinds(plan: &LogicalPlan) -> String {
    let shown = plan.display_indent().to_string();
    let kinds: Vec<_> = shown
        .lines()
        .map(|l| l.trim().split(':').next().unwrap_or_default())
        .map(|l| if l.starts_with("EmptyRelation") { "EmptyRelation" } else { l })
        .collect();
    kinds.join(" ")
}

#[test]
fn views_take_the_nodes_that_are_supported() {
    let mut report = Report::default();
    for (text, nodes) in [
        ("SELECT a, s FROM t WHERE a > 1 ORDER BY a", "Filter TableScan"),
        (
            "SELECT s, count(*), sum(a) FILTER (WHERE a > 1), avg(d) FROM t GROUP BY s HAVING \
             count(*) > 1",
            "Projection Filter Aggregate TableScan",
        ),
        (
            "SELECT t.a, name FROM t JOIN u ON t.id = u.id AND t.a < u.a",
            "Projection Inner Join Filter TableScan Filter TableScan",
        ),
        (
            "SELECT t.a, name FROM t, u WHERE t.id = u.id",
            "Projection Inner Join Filter TableScan Filter TableScan",
        ),
        ("SELECT a FROM t UNION ALL SELECT a FROM u", "Union TableScan TableScan"),
        ("SELECT 1 AS one", "Projection EmptyRelation"),
        ("SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS x(k, v)", "SubqueryAlias Projection Values"),
        ("WITH q AS (SELECT a FROM t) SELECT * FROM q", "SubqueryAlias TableScan"),
        ("SELECT * FROM src", "TableScan"),
        (
            "SELECT window_start, max(a) FROM tumble(src, ts, INTERVAL '1 minute') GROUP BY \
             window_start",
            "Projection Aggregate Projection Filter TableScan",
        ),
        ("SELECT plus FROM v", "SubqueryAlias Projection Filter TableScan"),
    ] {
        report.same(text, &shown(bind(text, Purpose::View), |b| kinds(&b.plan)), nodes);
    }
    report.finish();
    let bound = bind("SELECT plus FROM v", Purpose::View).expect("binds");
    assert_eq!(bound.depends_on.len(), 2);
}

#[test]
fn views_refuse_the_rest_by_name() {
    let mut report = Report::default();
    for (text, message) in [
        ("SELECT random() FROM t", "random() is not supported in a materialized view"),
        ("SELECT now() FROM t", "now() is not supported here in a materialized view"),
        (
            "SELECT a FROM t WHERE tz > current_timestamp - INTERVAL '1 month'",
            "now() is not supported here",
        ),
        ("SELECT current_date FROM t", "now() is not supported here"),
        ("SELECT gen_random_uuid() FROM t", "uuid() is not supported"),
    ] {
        report.error(text, bind(text, Purpose::View), "0A000", message);
    }
    report.finish();
    for text in ["SELECT a, a FROM t", "SELECT t.id, u.id FROM t JOIN u ON t.id = u.id"] {
        assert_eq!(bind(text, Purpose::View).expect_err(text).sqlstate(), "42701", "{text}");
    }
}

#[test]
fn names_in_parentheses_rename_a_views_columns() {
    let bound = |text: &str| match statement(text) {
        Statement::CreateView(view) => bind_view(&view, &catalog(), &settings()),
        other => panic!("{other:?}"),
    };
    let renamed = bound("CREATE MATERIALIZED VIEW m (x) AS SELECT a, a FROM t").expect("binds");
    assert_eq!(columns(&renamed), "x integer, a integer");
    let e = bound("CREATE MATERIALIZED VIEW m (x, y, z) AS SELECT a, a FROM t");
    assert_eq!(e.expect_err("too many").sqlstate(), "42601");
    let plain = bound("CREATE VIEW p AS SELECT DISTINCT a FROM src ORDER BY a LIMIT 1");
    assert_eq!(columns(&plain.expect("binds")), "a integer");
}

#[test]
fn inserts_make_the_columns_of_the_table() {
    let mut report = Report::default();
    let insert = |text: &str| -> Result<Vec<String>> {
        let bound = bind("SELECT * FROM u", Purpose::AdHoc)?;
        run_plan(&bound.plan, &[text])
    };
    for (text, expected) in [
        ("INSERT INTO u VALUES (1, 'a', 2)", "1|a|2"),
        ("INSERT INTO u (name, id) VALUES ('a', '7'), ('b', 8)", "7|a| 8|b|"),
        ("INSERT INTO u VALUES (1.5, 2, 3.4), (-1, upper('x'), DEFAULT)", "2|2|3 -1|X|"),
        ("INSERT INTO u (id, name) SELECT g, 'n' || g FROM generate_series(1, 2) g", "1|n1| 2|n2|"),
        ("INSERT INTO u (a, name, id) SELECT '5', 'lit', 1", "1|lit|5"),
        ("INSERT INTO u (name) VALUES (now())", "|2024-05-06 07:08:09+00|"),
    ] {
        report.same(text, &shown(insert(text), |rows| rows.join(" ")), expected);
    }
    for (text, sqlstate, message) in [
        (
            "INSERT INTO u VALUES (1, 'a', 2, 3)",
            "42601",
            "INSERT has more expressions than target columns",
        ),
        (
            "INSERT INTO u (id, name) VALUES (1)",
            "42601",
            "INSERT has more target columns than expressions",
        ),
        (
            "INSERT INTO u (id, x) VALUES (1, 2)",
            "42703",
            "column \"x\" of relation \"u\" does not exist",
        ),
        ("INSERT INTO u (id, id) VALUES (1, 2)", "42701", "column \"id\" specified more than once"),
        (
            "INSERT INTO u (id, name) VALUES (true, 'a')",
            "42804",
            "column \"id\" is of type bigint but expression is of type boolean",
        ),
        (
            "INSERT INTO u (name, a) SELECT 'x', now()",
            "42804",
            "column \"a\" is of type integer but expression is of type timestamp with time zone",
        ),
        ("INSERT INTO u (name, a) VALUES ('x', 3000000000)", "22003", "integer out of range"),
        (
            "INSERT INTO u VALUES ('x', 'a', 1)",
            "22P02",
            "invalid input syntax for type bigint: \"x\"",
        ),
        ("INSERT INTO src VALUES (1)", "42809", "cannot insert into source \"src\""),
        ("INSERT INTO v VALUES (1)", "42809", "cannot insert into view \"v\""),
        ("INSERT INTO nope VALUES (1)", "42P01", "relation \"nope\" does not exist"),
    ] {
        report.error(text, insert(text), sqlstate, message);
    }
    report.finish();
}

#[test]
fn updates_and_deletes_are_plans_of_rows() {
    let mut report = Report::default();
    let change = |text: &str| -> Result<Vec<String>> {
        let plan = match statement(text) {
            Statement::Update(u) => {
                bind_update(&u, &catalog(), &settings())?.rows.bind(&settings())?.plan
            }
            Statement::Delete(d) => {
                bind_delete(&d, &catalog(), &settings())?.rows.bind(&settings())?.plan
            }
            other => panic!("{other:?}"),
        };
        run_plan(&plan, DATA)
    };
    for (text, expected) in [
        ("DELETE FROM u WHERE a > 5 AND id < 4", "1|one|10"),
        (
            "DELETE FROM u AS x WHERE x.id IN (SELECT id FROM t WHERE s = 'x') AND x.id > 1",
            "3|three|0",
        ),
        ("DELETE FROM u WHERE false", ""),
        ("UPDATE u SET a = a + 1, name = name || '!' WHERE id = 1", "1|one|10|1|one!|11"),
        ("UPDATE u SET a = '7', id = 2.6 WHERE id = 3", "3|three|0|3|three|7"),
        (
            "UPDATE u SET a = DEFAULT, id = (SELECT max(id) FROM t) WHERE name = 'four'",
            "4|four|2147483647|3|four|",
        ),
    ] {
        report.same(text, &shown(change(text), |rows| rows.join(" ")), expected);
    }
    for (text, sqlstate) in [
        ("UPDATE u SET a = a + 1", "22003"),
        ("UPDATE u SET x = 1", "42703"),
        ("UPDATE u SET a = 1, a = 2", "42601"),
        ("UPDATE u SET a = ok FROM t", "42804"),
        ("UPDATE u SET a = true", "42804"),
        ("UPDATE log SET a = 1", "42809"),
        ("DELETE FROM log", "42809"),
        ("DELETE FROM src", "42809"),
    ] {
        report.error(text, change(text), sqlstate, "");
    }
    report.finish();
}

#[test]
fn parameters_are_typed_once_and_bound_often() {
    let catalog = catalog();
    let ready = |text: &str, declared: &[Option<DataType>]| {
        prepare(&statement(text), declared, &catalog, &settings())
    };
    let insert = ready("INSERT INTO u VALUES ($1, $2, $3 + 1)", &[]).expect("prepares");
    assert_eq!(insert.parameters()[..2], [DataType::Int64, DataType::Utf8]);
    for i in 0..3 {
        let values = [
            ScalarValue::Int64(Some(i)),
            ScalarValue::Utf8(Some(format!("n{i}"))),
            ScalarValue::Int32(Some(1)),
        ];
        let bound = insert.bind(&values, &settings()).expect("binds");
        let BoundStatement::Insert(bound) = bound else { panic!("an INSERT") };
        let InsertRows::Values(rows) = bound.rows else { panic!("values") };
        assert_eq!(display_value(rows.column(1), 0), Some(format!("n{i}")));
        assert_eq!(display_value(rows.column(2), 0), Some("2".into()));
    }
    let e = insert.bind(&[ScalarValue::Int64(Some(1))], &settings()).expect_err("too few");
    assert_eq!(e.sqlstate(), "42P02");
    let query = ready("SELECT id, $2 || s FROM t WHERE a > $1 AND ts < $3", &[]).expect("prepares");
    let timestamp = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
    assert_eq!(query.parameters(), [DataType::Int32, DataType::Utf8, timestamp.clone()]);
    assert_eq!(query.fields().expect("a query").field(1).data_type(), &DataType::Utf8);
    for (a, expected) in [(5, "1|px 2|py"), (15, "2|py")] {
        let values = [
            ScalarValue::Int32(Some(a)),
            ScalarValue::Utf8(Some("p".into())),
            crate::expr::parse_value("2025-01-01", &timestamp).expect("a timestamp"),
        ];
        let BoundStatement::Query(bound) = query.bind(&values, &settings()).expect("binds") else {
            panic!("a query")
        };
        assert_eq!(run_plan(&bound.plan, DATA).expect("runs").join(" "), expected);
    }
    let update = ready("UPDATE u SET name = $1 WHERE id = $2", &[]).expect("prepares");
    assert_eq!(update.parameters(), [DataType::Utf8, DataType::Int64]);
    let page = ready("SELECT id FROM t ORDER BY id LIMIT $1 OFFSET $2", &[]).expect("prepares");
    assert_eq!(page.parameters(), [DataType::Int64, DataType::Int64]);
    let values = [ScalarValue::Int64(Some(1)), ScalarValue::Int64(Some(1))];
    let BoundStatement::Query(bound) = page.bind(&values, &settings()).expect("binds") else {
        panic!("a query")
    };
    assert_eq!(run_plan(&bound.plan, DATA).expect("runs"), ["2"]);
    let declared = ready("SELECT $1", &[Some(DataType::Int32)]).expect("prepares");
    assert_eq!(declared.parameters(), [DataType::Int32]);
}

#[test]
fn watermarks_are_a_delay_or_what_rows_say() {
    let watermark = |expr: &str| {
        let text = format!("CREATE TABLE x (a int, ts timestamp, WATERMARK FOR ts AS {expr})");
        let Statement::CreateTable(t) = statement(&text) else { panic!("{text}") };
        let (column, clause) = t.watermark.expect("a watermark");
        let fields: Vec<_> = t
            .columns
            .iter()
            .map(|c| arrow::datatypes::Field::new(&c.name, c.data_type.clone(), true))
            .collect();
        bind_watermark(&clause.expr, column, &Arc::new(Schema::new(fields)), &settings())
    };
    let delay = |expr: &str| {
        let def = watermark(expr).expect("binds");
        assert_eq!(def.marker, None, "{expr}");
        def.delay_us
    };
    assert_eq!(delay("ts - INTERVAL '5 seconds'"), 5_000_000);
    assert_eq!(delay("ts - '1 minute'"), 60_000_000);
    assert_eq!(delay("(ts)"), 0);
    for expr in ["ts + INTERVAL '5 seconds'", "CASE WHEN a > 0 THEN ts END", "NULL"] {
        let def = watermark(expr).expect("binds");
        assert!(def.marker.is_some(), "{expr}");
        assert_eq!(def.columns().next(), Some(1));
    }
    let refused = [("a", "42804"), ("ts - INTERVAL '1 month'", "0A000"), ("now()", "42P16")];
    for (expr, sqlstate) in refused {
        assert_eq!(watermark(expr).expect_err(expr).sqlstate(), sqlstate, "{expr}");
    }
}
