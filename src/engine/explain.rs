//! EXPLAIN: the operators that a materialized view has or would have.

use std::collections::BTreeMap;

use datafusion::logical_expr::LogicalPlan;
use serde::Serialize;

use super::ddl::lower_bound;
use super::point_read::PointRead;
use super::session::Session;
use crate::catalog::{RelationId, RelationKind};
use crate::error::{Error, Result, sqlstate};
use crate::plan::{JsonNode, PlanNode, as_sql, explain, explain_json};
use crate::runtime::{NodeId, Pin, TablePlace, TableSize};
use crate::sql::statement::{Emit, Explain, ExplainTarget};
use crate::sql::{self, Purpose};

/// What stands between how a query is read at once and the plan of a view.
const OF_VIEW: &str = "As a materialized view:";

/// EXPLAIN (FORMAT JSON).
#[derive(Serialize)]
struct JsonPlan {
    #[serde(rename = "Plan")]
    plan: JsonNode,
    #[serde(rename = "Index Scans", skip_serializing_if = "Vec::is_empty")]
    index_scans: Vec<String>,
    #[serde(rename = "Logical Plan", skip_serializing_if = "Vec::is_empty")]
    logical: Vec<String>,
    #[serde(rename = "State Now", skip_serializing_if = "Vec::is_empty")]
    state: Vec<String>,
}

fn trimmed(lines: Vec<String>) -> Vec<String> {
    lines.iter().map(|line| as_sql(line.trim())).collect()
}

/// The view that is explained.
fn own_id(target: &ExplainTarget, pin: &Pin) -> Result<Option<RelationId>> {
    match target {
        ExplainTarget::View(name) => Ok(Some(pin.catalog.get(name)?.id)),
        _ => Ok(None),
    }
}

impl Session {
    pub(super) async fn explain_lines(&self, request: &Explain) -> Result<Vec<String>> {
        match &request.target {
            ExplainTarget::Analyze(name) => return self.analyze_lines(name).await,
            ExplainTarget::State(name) => return self.state_of_view(name).await,
            _ => {}
        }
        if request.passes {
            return self.explain_pass_lines(&request.target);
        }
        match &request.target {
            ExplainTarget::Wait(name) => return self.wait_lines(name).await,
            ExplainTarget::Replace(create) => {
                return self.explain_replace(create, &self.engine.core.shared.pin());
            }
            ExplainTarget::Restore(from) => return self.explain_restore(from).await,
            _ => {}
        }
        let pin = self.engine.core.shared.pin();
        let (plan, logical) = self.explained(&request.target, &pin)?;
        let mut lines = self.explain_point_reads(&request.target)?;
        let own = own_id(&request.target, &pin)?;
        lines.extend(explain(&plan, &|relation, key| readers_of(&pin, (relation, key), own)));
        if request.verbose
            && let Some(logical) = logical
        {
            lines.push(String::new());
            lines.push("logical plan:".into());
            let text = logical.display_indent().to_string();
            lines.extend(text.lines().map(|l| format!("  {l}")));
        }
        if let ExplainTarget::View(name) = &request.target {
            let id = pin.catalog.get(name)?.id;
            lines.extend(self.state_lines(id).await?);
            if request.verbose {
                lines.extend(self.identity_lines(id).await?);
            }
        }
        Ok(lines)
    }

    /// The plan of a query or view, and the one that it was made of.
    fn explained(
        &self,
        target: &ExplainTarget,
        pin: &Pin,
    ) -> Result<(PlanNode, Option<LogicalPlan>)> {
        if let Some((query, emit)) = target.query() {
            let bound = sql::bind_query(query, &pin.catalog, Purpose::View, &self.settings())?;
            self.check_reads(&bound.reads)?;
            let plan = lower_bound(&bound, emit, &self.engine.core.shared)?;
            return Ok((plan, Some(bound.plan)));
        }
        let ExplainTarget::View(name) = target else {
            return Err(Error::unsupported("EXPLAIN (FORMAT JSON) of this is not supported")
                .with_hint("It takes a query, CREATE MATERIALIZED VIEW, or a view."));
        };
        let relation = pin.catalog.get(name)?;
        let plan = pin.relations.get(&relation.id).and_then(|r| r.plan.clone());
        let plan: PlanNode = plan.ok_or_else(|| {
            Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not a materialized view"),
            )
            .with_hint(match relation.kind {
                RelationKind::View => format!("EXPLAIN SELECT * FROM \"{name}\";"),
                _ => "EXPLAIN SELECT .. shows the plan of a query.".to_owned(),
            })
        })?;
        Ok((plan, None))
    }

    /// The plan of a query or view as JSON.
    pub(super) async fn explain_json(&self, request: &Explain) -> Result<String> {
        if request.passes {
            return Err(Error::unsupported("EXPLAIN (PASSES, FORMAT JSON) is not supported"));
        }
        let pin = self.engine.core.shared.pin();
        let (plan, logical) = self.explained(&request.target, &pin)?;
        let own = own_id(&request.target, &pin)?;
        let sharers = |relation, key: &[usize]| readers_of(&pin, (relation, key), own);
        let mut json = JsonPlan {
            plan: explain_json(&plan, &sharers),
            index_scans: trimmed(self.explain_point_reads(&request.target)?),
            logical: Vec::new(),
            state: Vec::new(),
        };
        json.index_scans.pop_if(|line| line == OF_VIEW);
        if let (true, Some(logical)) = (request.verbose, logical) {
            let text = logical.display_indent().to_string();
            json.logical = text.lines().map(as_sql).collect();
        }
        if let Some(id) = own {
            // Behind the title.
            json.state = trimmed(self.state_lines(id).await?).into_iter().skip(1).collect();
        }
        serde_json::to_string_pretty(&[json]).map_err(|e| Error::internal(e.to_string()))
    }

    /// The query behind each pass that changes it: as a read, or as that of a view.
    fn explain_pass_lines(&self, target: &ExplainTarget) -> Result<Vec<String>> {
        let pin = self.read_point();
        let of_view;
        let (query, purpose) = match target {
            ExplainTarget::Query(query, _) => (query.as_ref(), Purpose::AdHoc),
            ExplainTarget::Create(view) if !view.materialized => {
                (view.query.as_ref(), Purpose::AdHoc)
            }
            ExplainTarget::Create(view) => (view.query.as_ref(), Purpose::View),
            ExplainTarget::View(name) => {
                let relation = pin.catalog.get(name)?;
                if relation.query.is_none() {
                    return Err(Error::user(
                        sqlstate::WRONG_OBJECT_TYPE,
                        format!("\"{name}\" is not a view"),
                    )
                    .with_hint(format!("EXPLAIN (PASSES) SELECT * FROM \"{name}\";")));
                }
                of_view = sql::query_of_view(relation)?;
                let materialized = relation.kind == RelationKind::MaterializedView;
                (&of_view, if materialized { Purpose::View } else { Purpose::AdHoc })
            }
            _ => {
                return Err(Error::unsupported("EXPLAIN (PASSES) of this is not supported")
                    .with_hint("It takes a query, CREATE MATERIALIZED VIEW, or a view."));
            }
        };
        if self.role().is_some() {
            let bound = sql::bind_query(query, &pin.catalog, purpose, &self.settings())?;
            self.check_reads(&bound.reads)?;
        }
        let provide = |id| self.provider(&pin, id);
        sql::explain_passes(query, &pin.catalog, purpose, &self.settings(), &provide)
    }

    /// What the query looks up by an index when it is run at once, ahead of the plan that a view of
    /// it would have.
    fn explain_point_reads(&self, target: &ExplainTarget) -> Result<Vec<String>> {
        let Some((query, emit)) = target.query() else { return Ok(Vec::new()) };
        if emit != Emit::default() {
            return Ok(Vec::new());
        }
        let pin = self.read_point();
        let bound = sql::bind_query(query, &pin.catalog, Purpose::AdHoc, &self.settings());
        // What only a view can read is not looked up.
        let Ok(bound) = bound else { return Ok(Vec::new()) };
        let reads = self.point_reads(&bound.plan, &pin)?;
        let mut lines: Vec<String> = reads.iter().flat_map(PointRead::explain).collect();
        if !lines.is_empty() {
            lines.push(OF_VIEW.into());
        }
        Ok(lines)
    }

    /// What the state of a running view is known by when it is not in memory.
    async fn identity_lines(&self, id: RelationId) -> Result<Vec<String>> {
        let tables = self.engine.core.coordinator.call(move |c| c.state_tables(id)).await?;
        let line = |(operator, place): &(&str, TablePlace)| {
            format!("  {} {operator} {}", place.node, place.table)
        };
        let mut lines = vec![format!("state tables of relation {id}, by node:")];
        lines.extend(tables.iter().map(line));
        Ok(lines)
    }

    /// What the tables of a running view hold now, over all workers.
    async fn state_lines(&self, id: RelationId) -> Result<Vec<String>> {
        let sizes = self.engine.core.coordinator.call(|c| c.state_sizes()).await?;
        let mut sums: BTreeMap<(NodeId, &str), TableSize> = BTreeMap::new();
        for (_, size) in sizes.into_iter().filter(|(relation, _)| *relation == id) {
            match sums.get_mut(&(size.node, size.name)) {
                Some(sum) => sum.add(&size),
                None => drop(sums.insert((size.node, size.name), size)),
            }
        }
        let mut lines: Vec<String> = sums.into_values().map(|size| format!("  {size}")).collect();
        if !lines.is_empty() {
            lines.insert(0, "state now, from the inputs to the output:".into());
        }
        Ok(lines)
    }
}

/// The names of the views that read rows of a relation by some columns where they are stored, but
/// for one of them.
pub(super) fn readers_of(
    pin: &Pin,
    (relation, key): (RelationId, &[usize]),
    except: Option<RelationId>,
) -> Vec<String> {
    let others = pin.relations.values().filter(|state| Some(state.id) != except);
    let reading = others.filter(|state| {
        let plan = state.plan.as_ref();
        plan.is_some_and(|plan| plan.indexes().contains(&(relation, key.to_vec())))
    });
    let names = reading.filter_map(|state| pin.catalog.by_id(state.id));
    let mut names: Vec<String> = names.map(|view| view.name.clone()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use crate::config::Config;
    use crate::engine::{Engine, Outcome};

    #[tokio::test(flavor = "multi_thread")]
    async fn json_nests_the_operators() {
        let engine = Engine::open(Config::with_workers(1)).expect("opens");
        let mut session = engine.session();
        let text = "CREATE TABLE t (k int PRIMARY KEY, v int);
                    CREATE MATERIALIZED VIEW m AS SELECT v, count(*) AS n FROM t GROUP BY v;";
        session.execute(text).await.expect("definitions");
        let explained = session.execute("EXPLAIN (FORMAT JSON) m").await.expect("a plan").pop();
        let Some(Outcome::Rows(rows)) = explained else { panic!("rows") };
        let batches = rows.collect().await.expect("rows");
        let text = batches[0].column(0).as_string::<i64>().value(0).to_owned();
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let plan = &json[0]["Plan"];
        assert_eq!(plan["Node Type"], "Aggregate", "{text}");
        assert_eq!(plan["State"][0]["Table"], "groups", "{text}");
        let below = &plan["Plans"][0];
        assert_eq!(below["Exchange Hash"][0], "v", "{text}");
        assert_eq!(below["Node Type"], "Scan", "{text}");
        assert_eq!(below["Relation Name"], "t", "{text}");
        assert_eq!(json[0]["State Now"].as_array().map_or(0, Vec::len), 1, "{text}");
    }
}
