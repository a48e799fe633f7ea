//! Fields of columns that were declared as `ROW<..>` or `STRUCT<..>`: `person.id`, `(person).id`.
//!
//! What is kept of such a column is jsonb. A field is taken out by its name, as columns are out of
//! messages, and cast to its declared type; a missing one is NULL. Which columns have fields is
//! known by their names, those of the relations that a query reads.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, Result as DfResult, TableReference};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{Expr, lit};

use super::functions::FUNCTIONS;
use crate::catalog::Relation;
use crate::error::Result;
use crate::expr::{Coercion, call, cast_expr, from_datafusion, to_datafusion};

/// The columns with fields that a query can name.
#[derive(Debug, Default)]
pub(super) struct Records(Mutex<Vec<(String, DataType)>>);

impl Records {
    /// Those of one more relation.
    pub(super) fn add(&self, relation: &Relation) {
        for (at, record) in &relation.rules.records {
            self.add_column(relation.schema.field(*at).name(), record);
        }
    }

    pub(super) fn add_column(&self, name: &str, record: &DataType) {
        let mut columns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !columns.iter().any(|(n, r)| n == name && r == record) {
            columns.push((name.to_owned(), record.clone()));
        }
    }

    /// What plans expressions, these fields among them.
    pub(super) fn planners(self: &Arc<Self>) -> Vec<Arc<dyn ExprPlanner>> {
        let own: Arc<dyn ExprPlanner> = self.clone();
        std::iter::once(own).chain(FUNCTIONS.expr_planners.iter().cloned()).collect()
    }

    /// The field that a path of names leads to.
    fn field(&self, column: &Expr, name: &str, path: &[String]) -> Option<Result<Expr>> {
        let columns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = columns.iter().filter(|(n, _)| n == name).map(|(_, record)| record);
        records.find_map(|record| field_of(column.clone(), record, path))
    }
}

impl ExprPlanner for Records {
    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> DfResult<PlannerResult<Vec<Expr>>> {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        match self.field(&column, field.name(), nested_names) {
            Some(found) => found.map(PlannerResult::Planned).map_err(to_datafusion),
            None => Ok(PlannerResult::Original(Vec::new())),
        }
    }
}

fn field_of(record: Expr, of: &DataType, path: &[String]) -> Option<Result<Expr>> {
    let (DataType::Struct(fields), Some((first, rest))) = (of, path.split_first()) else {
        return None;
    };
    let field = fields.iter().find(|field| field.name() == first)?;
    let part = |name| {
        let args = vec![record.clone(), lit(first.as_str())];
        call(name, args).map_err(from_datafusion)
    };
    let made = match (field.data_type(), rest) {
        (of @ DataType::Struct(_), [_, ..]) => {
            return match part("record_part") {
                Ok(part) => field_of(part, of, rest),
                Err(error) => Some(Err(error)),
            };
        }
        (_, [_, ..]) => return None,
        (DataType::Struct(_) | DataType::LargeUtf8, []) => part("record_part"),
        (DataType::Utf8, []) => part("record_field"),
        (to, []) => part("record_field")
            .and_then(|text| cast_expr(text, &DataType::Utf8, to, Coercion::Explicit)),
    };
    Some(made)
}
