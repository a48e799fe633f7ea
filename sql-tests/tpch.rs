//! TPC-H as materialized views: all 22 queries over 8 tables that are loaded in pieces and then
//! changed at random, every view equal to its recomputation after every statement.
//!
//! * `HEADWATER_TPCH_SF=0.01`: another scale factor than the default;
//! * `HEADWATER_TPCH_SEED=n`: other changes.

#[path = "tpch/mod.rs"]
mod data;

use std::io::Write as _;

use data::{QUERIES, SCHEMA, TABLES};
use headwater::config::Config;
use headwater::engine::{Engine, Session, Verdict};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const SCALE_FACTOR: f64 = 0.002;
/// Pieces that every table is loaded in.
const PIECES: usize = 4;
/// Rounds of changes after the load.
const ROUNDS: usize = 5;
const ROWS_PER_INSERT: usize = 500;

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

async fn run(session: &mut Session, sql: &str) {
    if let Err(e) = session.execute(sql).await {
        panic!("{e}\nin: {}", sql.chars().take(300).collect::<String>());
    }
}

async fn compare(session: &mut Session, when: &str) {
    let verdicts = session.check_views().await.unwrap_or_else(|e| panic!("{when}: {e}"));
    assert_eq!(verdicts.len(), QUERIES.len(), "{when}: every query is a view");
    for (view, verdict) in verdicts {
        assert_eq!(verdict, Verdict::Equal, "{when}: {view}");
    }
}

/// A statement that changes rows which some query looks at.
fn change(random: &mut SmallRng) -> String {
    let part = |random: &mut SmallRng, n: u32| format!("% {n} = {}", random.random_range(0..n));
    let p = part(random, 29);
    let q = part(random, 7);
    let kinds = [
        format!("DELETE FROM lineitem WHERE (l_orderkey + l_linenumber) {p}"),
        format!("DELETE FROM orders WHERE (o_orderkey / 4) {p}"),
        format!("DELETE FROM customer WHERE c_custkey {p}"),
        format!(
            "UPDATE lineitem SET l_quantity = l_quantity + 40, l_discount = 0.06,
             l_shipdate = l_shipdate + 30 WHERE (l_orderkey / 4) {p}"
        ),
        format!(
            "UPDATE lineitem SET l_receiptdate = l_commitdate + 3, l_returnflag = 'R',
             l_shipmode = 'AIR', l_shipinstruct = 'DELIVER IN PERSON' WHERE l_partkey {p}"
        ),
        format!("UPDATE lineitem SET l_suppkey = l_suppkey % 20 + 1 WHERE l_partkey {p}"),
        format!("UPDATE orders SET o_orderdate = DATE '1993-10-15' WHERE o_custkey {p}"),
        format!("UPDATE orders SET o_custkey = o_custkey / 2 + 1 WHERE (o_orderkey / 4) {p}"),
        format!("UPDATE orders SET o_comment = 'special or not requests' WHERE o_custkey {p}"),
        format!("UPDATE customer SET c_acctbal = c_acctbal * 2 WHERE c_custkey {q}"),
        format!("UPDATE customer SET c_phone = '13-' || c_phone WHERE c_custkey {q}"),
        format!(
            "UPDATE customer SET c_nationkey = 8, c_mktsegment = 'BUILDING' WHERE c_custkey {q}"
        ),
        format!("UPDATE supplier SET s_comment = 'Customer Complaints' WHERE s_suppkey {q}"),
        format!("UPDATE supplier SET s_nationkey = 3 WHERE s_suppkey {q}"),
        format!("UPDATE supplier SET s_nationkey = 7 WHERE s_suppkey {q}"),
        format!(
            "UPDATE part SET p_brand = 'Brand#23', p_container = 'MED BOX' WHERE p_partkey {q}"
        ),
        format!("UPDATE part SET p_type = 'PROMO BRASS', p_size = 15 WHERE p_partkey {p}"),
        format!("UPDATE part SET p_name = 'forest green' WHERE p_partkey {p}"),
        format!("UPDATE part SET p_type = 'ECONOMY ANODIZED STEEL' WHERE p_partkey {q}"),
        format!("UPDATE partsupp SET ps_supplycost = 1, ps_availqty = 9999 WHERE ps_partkey {p}"),
        format!("DELETE FROM partsupp WHERE (ps_partkey + ps_suppkey) {p}"),
        "UPDATE nation SET n_name = 'GERMANY' WHERE n_name = 'FRANCE'".to_owned(),
        format!("UPDATE nation SET n_regionkey = 3 WHERE n_nationkey {q}"),
        "UPDATE region SET r_name = 'EUROPE' WHERE r_regionkey = 1".to_owned(),
    ];
    let at = random.random_range(0..kinds.len());
    kinds.into_iter().nth(at).expect("within the list")
}

async fn load(session: &mut Session, scale_factor: f64) {
    let tables = TABLES.map(|table| {
        let mut rows = Vec::new();
        data::rows(table, scale_factor, |row| rows.push(values(row)));
        (table, rows)
    });
    for piece in 0..PIECES {
        for (table, rows) in &tables {
            let (from, to) = (rows.len() * piece / PIECES, rows.len() * (piece + 1) / PIECES);
            for some in rows[from..to].chunks(ROWS_PER_INSERT) {
                let list = some.join(", ");
                // Small factors have a supplier of a part twice.
                let insert = format!("INSERT INTO {table} VALUES {list} ON CONFLICT DO NOTHING");
                run(session, &insert).await;
            }
        }
        compare(session, &format!("after piece {piece} of the load")).await;
    }
}

async fn tpch(workers: usize) {
    let scale_factor = variable("HEADWATER_TPCH_SF", SCALE_FACTOR);
    let seed = variable("HEADWATER_TPCH_SEED", 1u64);
    let engine = Engine::open(Config::with_workers(workers)).expect("opens");
    let mut session = engine.session();
    run(&mut session, SCHEMA).await;
    for (name, sql) in QUERIES {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await;
    }
    load(&mut session, scale_factor).await;
    let mut random = SmallRng::seed_from_u64(seed);
    for round in 0..ROUNDS {
        let statements: Vec<String> = (0..6).map(|_| change(&mut random)).collect();
        for statement in &statements {
            run(&mut session, statement).await;
        }
        let done = statements.join("; ");
        compare(&mut session, &format!("workers {workers}, round {round}, after: {done}")).await;
    }
    let mut rows = Vec::new();
    for (name, _) in QUERIES {
        rows.push(format!("{name} {}", count(&mut session, name).await));
    }
    let text = format!("TPC-H SF {scale_factor}, rows at the end: {}", rows.join(", "));
    writeln!(std::io::stderr(), "{text}").expect("stderr takes a line");
    engine.shutdown().await.expect("shuts down");
}

async fn count(session: &mut Session, view: &str) -> usize {
    let outcomes = session.execute(&format!("SELECT * FROM {view}")).await.expect("reads");
    let mut total = 0;
    for outcome in outcomes {
        if let headwater::Outcome::Rows(rows) = outcome {
            let batches = rows.collect().await.expect("rows");
            total += batches.iter().map(|b| b.num_rows()).sum::<usize>();
        }
    }
    total
}

#[test]
fn all_queries_follow_loads_and_changes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(tpch(variable("HEADWATER_TPCH_WORKERS", 2)));
}

/// A row as the text of a VALUES list's item.
fn values(row: &str) -> String {
    let quoted = row.split('|').map(|v| format!("'{}'", v.replace('\'', "''")));
    format!("({})", quoted.collect::<Vec<_>>().join(", "))
}
