//! Point reads: where a plan asks a relation for given values of its key, or of the columns of one
//! of its indexes, the rows with these values are looked up and the plan runs over them alone.
//!
//! What is looked up may be more than what the condition keeps, never less: the plan still filters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

use super::dml::{snapshot, state_of};
use super::provider::expand;
use super::session::Session;
use crate::catalog::{Catalog, Relation, RelationId};
use crate::config::POINT_READ_KEYS_MAX;
use crate::delta::text::display_value;
use crate::delta::{DeltaBatch, Order, concat, consolidate};
use crate::error::Result;
use crate::expr::from_datafusion;
use crate::runtime::Pin;
use crate::sql::{RelationSource, compares_as_bytes, each_node};
use crate::state::Found;

/// Rows of a relation that are looked up.
pub(super) struct PointRead {
    relation: Arc<Relation>,
    /// What leads to them, as EXPLAIN names it.
    index: String,
    columns: Vec<usize>,
    /// The wanted values, an array per column.
    values: Vec<ArrayRef>,
}

impl PointRead {
    /// As PostgreSQL's EXPLAIN says it.
    pub(super) fn explain(&self) -> Vec<String> {
        let rows = self.values.first().map_or(0, |v| v.len());
        let list = |at: usize| {
            let value = |row| display_value(&self.values[at], row).unwrap_or_default();
            (0..rows).map(value).collect::<Vec<_>>().join(", ")
        };
        let names = self.columns.iter().map(|c| self.relation.schema.field(*c).name());
        let equal = names.enumerate().map(|(at, name)| match rows {
            1 => format!("({name} = {})", list(at)),
            _ => format!("({name} = any of {})", list(at)),
        });
        vec![
            format!("Index Scan using {} on {}", self.index, self.relation.name),
            format!("  Index Cond: {}", equal.collect::<Vec<_>>().join(" AND ")),
        ]
    }
}

impl Session {
    /// The rows of relations that a plan asks for by an index.
    pub(super) fn look_up(
        &self,
        plan: &LogicalPlan,
        pin: &Arc<Pin>,
    ) -> Result<Vec<(RelationId, RecordBatch)>> {
        let mut found = Vec::new();
        for read in self.point_reads(plan, pin)? {
            let id = read.relation.id;
            let snapshot = snapshot(pin, id)?;
            let rows = snapshot.table.find(&read.columns, &read.values, snapshot.epoch)?;
            pin.check()?;
            let Found::Rows(rows) = rows else { continue };
            // Rows that own writes take away and that were not looked up are left with a negative
            // weight: they do not meet the condition, and give no row.
            let own = self.own_writes(id);
            let rows = match own.is_empty() {
                true => rows,
                false => {
                    let all: Vec<DeltaBatch> =
                        std::iter::once(rows).chain(own.iter().cloned()).collect();
                    match concat(&all)? {
                        Some(all) => consolidate(&all, Order::Input)?,
                        None => continue,
                    }
                }
            };
            found.push((id, expand(&rows)?));
        }
        Ok(found)
    }

    /// What of a plan can be looked up. A relation that is read twice is scanned.
    pub(super) fn point_reads(&self, plan: &LogicalPlan, pin: &Arc<Pin>) -> Result<Vec<PointRead>> {
        let mut scans: BTreeMap<RelationId, usize> = BTreeMap::new();
        let mut wanted = Vec::new();
        each_node(plan, &mut |node| {
            match node {
                LogicalPlan::TableScan(scan) => {
                    if let Some(source) = scan.source.downcast_ref::<RelationSource>() {
                        *scans.entry(source.relation.id).or_default() += 1;
                    }
                }
                LogicalPlan::Filter(filter) => {
                    if let LogicalPlan::TableScan(scan) = filter.input.as_ref()
                        && let Some(source) = scan.source.downcast_ref::<RelationSource>()
                    {
                        wanted.push((Arc::clone(&source.relation), filter.predicate.clone()));
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        let mut reads = Vec::new();
        for (relation, predicate) in wanted {
            let known = pin.catalog.by_id(relation.id).is_some();
            if known && scans.get(&relation.id) == Some(&1) {
                reads.extend(point_read(&relation, &predicate, pin)?);
            }
        }
        Ok(reads)
    }
}

fn point_read(
    relation: &Arc<Relation>,
    predicate: &Expr,
    pin: &Arc<Pin>,
) -> Result<Option<PointRead>> {
    // The name of a relation that is not there is the one that was bound.
    state_of(pin, relation.id, &relation.name)?;
    let snapshot = snapshot(pin, relation.id)?;
    let schema = &snapshot.table.spec().schema;
    let mut demanded = Demands::new();
    demands(predicate, schema, &mut demanded);
    let key = &snapshot.table.spec().key;
    let count = |column: usize| demanded.get(&column).map(Vec::len);
    let Some(way) = best_way(relation.id, key, &pin.catalog, count) else { return Ok(None) };
    let columns = way.columns.to_vec();
    let index = match way.index {
        Some(index) => index.local_name().to_owned(),
        None if relation.key.is_empty() => format!("{}_key", relation.local_name()),
        None => format!("{}_pkey", relation.local_name()),
    };
    let lists: Vec<&[ScalarValue]> =
        columns.iter().filter_map(|c| demanded.get(c)).map(Vec::as_slice).collect();
    let values = product(&lists, &columns, schema)?;
    Ok(Some(PointRead { relation: Arc::clone(relation), index, columns, values }))
}

/// How rows of a relation are found.
pub(super) struct Way<'a> {
    /// The index; `None` for the key.
    index: Option<&'a Relation>,
    pub(super) columns: &'a [usize],
}

/// The way that needs the fewest look-ups; `count` is how many values are wanted of a column, if it
/// is known which.
pub(super) fn best_way<'a>(
    relation: RelationId,
    key: &'a [usize],
    catalog: &'a Catalog,
    count: impl Fn(usize) -> Option<usize>,
) -> Option<Way<'a>> {
    let lookups = |columns: &[usize]| {
        let counts = columns.iter().map(|c| count(*c));
        let product = counts.reduce(|a, b| a?.checked_mul(b?)).flatten();
        product.filter(|n| *n <= POINT_READ_KEYS_MAX)
    };
    let by_key = lookups(key).map(|n| (n, Way { index: None, columns: key }));
    // It can't be better, and indexes are looked for in the whole catalog.
    if let Some((0 | 1, way)) = by_key {
        return Some(way);
    }
    let mut best = by_key;
    for index in catalog.indexes(relation) {
        let Some(n) = lookups(&index.key) else { continue };
        if best.as_ref().is_none_or(|(least, _)| n < *least) {
            best = Some((n, Way { index: Some(index.as_ref()), columns: &index.key }));
        }
    }
    best.map(|(_, way)| way)
}

/// The values that a column must have one of.
type Demands = HashMap<usize, Vec<ScalarValue>>;

/// Collects what a conjunction demands of columns. NULL equals nothing, so it is left out.
fn demands(predicate: &Expr, schema: &SchemaRef, found: &mut Demands) {
    if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) = predicate {
        demands(left, schema, found);
        demands(right, schema, found);
        return;
    }
    let Some((column, mut values)) = one_of(predicate) else { return };
    let Ok(at) = schema.index_of(column) else { return };
    values.retain(|v| !v.is_null());
    // Another type would compare in ways that key bytes do not.
    let same = values.iter().all(|v| v.data_type() == *schema.field(at).data_type());
    if same && compares_as_bytes(schema.field(at).data_type()) {
        let fewer = found.get(&at).is_none_or(|old| values.len() < old.len());
        if fewer {
            found.insert(at, values);
        }
    }
}

/// `column = v`, `column IN (v, ..)`, and such conditions on one column with OR between them.
fn one_of(expr: &Expr) -> Option<(&str, Vec<ScalarValue>)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let ((column, mut values), (other, more)) = (one_of(left)?, one_of(right)?);
            values.extend(more);
            (column == other).then_some((column, values))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _))
                | (Expr::Literal(value, _), Expr::Column(column)) => {
                    Some((&column.name, vec![value.clone()]))
                }
                _ => None,
            }
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let value = |e: &Expr| match e {
                Expr::Literal(value, _) => Some(value.clone()),
                _ => None,
            };
            Some((&column.name, list.iter().map(value).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// All combinations of the lists, an array per list.
pub(super) fn product(
    lists: &[&[ScalarValue]],
    columns: &[usize],
    schema: &SchemaRef,
) -> Result<Vec<ArrayRef>> {
    let rows: usize = lists.iter().map(|l| l.len()).product();
    if rows == 1 {
        let one = |list: &&[ScalarValue]| list[0].to_array_of_size(1).map_err(from_datafusion);
        return lists.iter().map(one).collect();
    }
    let mut every = rows;
    let mut arrays = Vec::with_capacity(lists.len());
    for (list, column) in lists.iter().zip(columns) {
        if rows == 0 {
            arrays.push(arrow::array::new_empty_array(schema.field(*column).data_type()));
            continue;
        }
        every /= list.len();
        let values = ScalarValue::iter_to_array(list.iter().cloned()).map_err(from_datafusion)?;
        let at = |row: usize| (row / every % list.len()) as u32;
        let indices = UInt32Array::from_iter_values((0..rows).map(at));
        arrays.push(arrow::compute::take(&values, &indices, None)?);
    }
    Ok(arrays)
}
