//! Queries over rows that a statement has in hand: RETURNING, ON CONFLICT DO UPDATE, and the table
//! of an UPDATE .. FROM or DELETE .. USING with its rows numbered.
//!
//! Such rows are a relation under a name that no user can write, with an id of its own
//! ([`RelationId::ROWS`], [`RelationId::TARGET`]) for which the engine provides them. Their columns
//! carry the names of the tables that they stand for, so that the query is planned as any other.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Result as DfResult, TableReference};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource};
use sqlparser::ast::{self, ObjectNamePart, TableFactor};

use super::{from_table, select};
use crate::catalog::access::Acl;
use crate::catalog::{Comments, Relation, RelationId, RelationKind, WriteRules};
use crate::error::Result;
use crate::sql::binder::plan_query;
use crate::sql::context::{Context, RelationSource};
use crate::sql::errors::plan_error;
use crate::sql::optimize::analyze;
use crate::sql::pass::Scope;

/// A column of rows in hand: the table that it is of, its name and type.
pub(in crate::sql) type RowField = (Option<String>, Field);

/// The name under which rows in hand are read.
pub(super) const ROWS: &str = "\u{2}rows";
/// The name under which the numbered rows of the changed table are read.
pub(super) const TARGET: &str = "\u{2}target";

/// Plans one reserved name.
#[derive(Debug)]
struct InHand {
    name: &'static str,
    plan: LogicalPlan,
}

impl RelationPlanner for InHand {
    fn plan_relation(
        &self,
        relation: TableFactor,
        _: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        match relation {
            TableFactor::Table { name, alias, args: None, .. }
                if name.0.first().and_then(ObjectNamePart::as_ident).map(|i| i.value.as_str())
                    == Some(self.name) =>
            {
                let planned = PlannedRelation::new(self.plan.clone(), alias);
                Ok(RelationPlanning::Planned(Box::new(planned)))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// What plans rows with some columns as the relation `name`.
pub(super) fn in_hand(
    id: RelationId,
    name: &'static str,
    fields: &[RowField],
) -> Result<Arc<dyn RelationPlanner>> {
    let named = |(i, (_, f)): (usize, &RowField)| f.clone().with_name(format!("c{i}"));
    let schema: Vec<Field> = fields.iter().enumerate().map(named).collect();
    let relation = Relation {
        id,
        name: name.to_owned(),
        kind: RelationKind::System,
        schema: Arc::new(Schema::new(schema)),
        key: Vec::new(),
        watermark: None,
        rules: WriteRules::default(),
        connector: None,
        definition: String::new(),
        query: None,
        zone: None,
        sequence: None,
        depends_on: Vec::new(),
        acl: Acl::default(),
        comments: Comments::new(),
    };
    let source: Arc<dyn TableSource> = Arc::new(RelationSource::new(Arc::new(relation)));
    let scan = LogicalPlanBuilder::scan(TableReference::bare(name), source, None);
    let scan = scan.map_err(plan_error)?;
    let columns = scan.schema().columns();
    let columns = columns.into_iter().zip(fields).map(|(column, (table, field))| {
        let table = table.as_deref().map(TableReference::bare);
        Expr::Column(column).alias_qualified(table, field.name())
    });
    let plan = scan.project(columns).and_then(LogicalPlanBuilder::build).map_err(plan_error)?;
    Ok(Arc::new(InHand { name, plan }))
}

/// The columns of a table under a name.
pub(super) fn table_fields(relation: &Relation, alias: &str) -> Vec<RowField> {
    let fields = relation.schema.fields().iter();
    fields.map(|f| (Some(alias.to_owned()), f.as_ref().clone().with_nullable(true))).collect()
}

/// The number of a row.
pub(super) fn number_field() -> RowField {
    (None, Field::new(super::ROW_NUMBER, DataType::Int64, true))
}

/// Plans a RETURNING list over rows with some columns.
pub(in crate::sql) fn returning(
    items: &[ast::SelectItem],
    fields: &[RowField],
    context: &Context<'_>,
    parameters: &[Option<DataType>],
) -> Result<LogicalPlan> {
    let query = select(items.to_vec(), vec![from_table(ROWS)?], None)?;
    let context = context.with_planner(in_hand(RelationId::ROWS, ROWS, fields)?);
    analyze(plan_query(&query, &Scope::of(&context, parameters))?)
}
