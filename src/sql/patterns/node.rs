//! The node of MATCH_RECOGNIZE, and what the batch half runs in its place.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, ExprSchema, NullHandling, Result as DfResult, UnnestOptions,
    plan_err,
};
use datafusion::logical_expr::expr::{AggregateFunction, Sort};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};

use super::super::ties::whole_row;
use super::slots::row_column;
use crate::error::{Error, Result};
use crate::expr::pattern::{
    Condition, MatchAggregate, Recognizer, Rule, match_field, match_rows, slot_name,
};
use crate::expr::to_datafusion;

/// ORDER BY of a column that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatchOrder {
    /// The column.
    pub column: usize,
    /// Greatest first.
    pub descending: bool,
    /// NULLs ahead of all values.
    pub nulls_first: bool,
}

/// The matches of a row pattern.
///
/// Columns: those of the input that are kept, and what the measures ask of a match, `#0`, `#1`, ..
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MatchRecognize {
    /// The relation.
    pub input: LogicalPlan,
    /// The columns that are read. All other numbers of columns are places in this list.
    pub columns: Vec<Expr>,
    /// PARTITION BY.
    pub partition: Vec<usize>,
    /// ORDER BY.
    pub order: Vec<MatchOrder>,
    /// The pattern and all that goes with it.
    pub rule: Arc<Rule>,
    /// For each variable its condition over its slots.
    pub conditions: Vec<Option<Expr>>,
    /// The aggregates over the columns, and the types of their values.
    pub aggregates: Vec<(AggregateFunction, DataType)>,
    schema: DFSchemaRef,
}

/// Everything of a node but its output.
pub(super) struct Parts {
    pub(super) input: LogicalPlan,
    pub(super) columns: Vec<Expr>,
    pub(super) partition: Vec<usize>,
    pub(super) order: Vec<MatchOrder>,
    pub(super) rule: Arc<Rule>,
    pub(super) conditions: Vec<Option<Expr>>,
    pub(super) aggregates: Vec<(AggregateFunction, DataType)>,
}

impl MatchRecognize {
    pub(super) fn new(parts: Parts) -> DfResult<Self> {
        let Parts { input, columns, partition, order, rule, conditions, aggregates } = parts;
        let rows = rows(&input, &columns)?;
        let types: Vec<DataType> = aggregates.iter().map(|(_, t)| t.clone()).collect();
        let kept = rule.kept.iter().map(|c| {
            let field = match &columns[*c] {
                Expr::Column(column) => input.schema().field_from_column(column)?,
                other => return plan_err!("{other} is no column"),
            };
            Ok((None, Arc::new(field.as_ref().clone().with_nullable(true))))
        });
        let mut fields = kept.collect::<DfResult<Vec<_>>>()?;
        fields.extend(rule.measures.iter().enumerate().map(|(i, slot)| {
            let data_type = rule.slot_type(*slot, &rows, &types);
            (None, Arc::new(Field::new(slot_name(i), data_type, true)))
        }));
        let schema = DFSchema::new_with_metadata(fields, std::collections::HashMap::new())?;
        let schema = Arc::new(schema);
        Ok(Self { input, columns, partition, order, rule, conditions, aggregates, schema })
    }

    /// The columns that are read, under names of their own.
    pub fn rows(&self) -> Result<SchemaRef> {
        let rows = rows(&self.input, &self.columns);
        rows.map(Arc::new).map_err(|e| Error::internal(e.to_string()))
    }

    /// The rule, compiled.
    pub fn compiled(&self) -> Result<Recognizer> {
        let rows = self.rows()?;
        let columns = DFSchema::try_from(rows.as_ref().clone());
        let columns = columns.map_err(|e| Error::internal(e.to_string()))?;
        let aggregates = self.aggregates.iter();
        let aggregates = aggregates
            .map(|(call, result)| MatchAggregate::new(call, &columns, result.clone()))
            .collect::<Result<_>>()?;
        let types: Vec<DataType> = self.aggregates.iter().map(|(_, t)| t.clone()).collect();
        let conditions = self.conditions.iter().zip(&self.rule.conditions).map(|(expr, slots)| {
            let types = slots.iter().map(|s| self.rule.slot_type(*s, &rows, &types)).collect();
            expr.as_ref().map(|e| Condition::new(e, slots, types)).transpose()
        });
        let conditions = conditions.collect::<Result<_>>()?;
        let output = Arc::new(self.schema.as_arrow().clone());
        Ok(Recognizer { rule: Arc::clone(&self.rule), input: rows, conditions, aggregates, output })
    }

    /// The same in nodes that DataFusion can run: a window function over the rows of a partition
    /// that gives lists, unnested.
    pub(in crate::sql) fn executable(&self) -> DfResult<LogicalPlan> {
        const LIST: &str = "#matches";
        let column = |c: usize| Expr::Column(Column::new_unqualified(row_column(c)));
        let all = || (0..self.columns.len()).map(column);
        let named = self.columns.iter().enumerate().map(|(i, e)| e.clone().alias(row_column(i)));
        let rows = LogicalPlanBuilder::from(self.input.clone()).project(named)?.build()?;
        let mut order: Vec<Sort> = self
            .order
            .iter()
            .map(|by| Sort::new(column(by.column), !by.descending, by.nulls_first))
            .collect();
        order.extend(whole_row(rows.schema(), &order));
        let partition = self.partition.iter().map(|c| column(*c)).collect();
        let by = self.compiled().map_err(to_datafusion)?;
        let call = match_rows(by, all().collect(), partition, order)?;
        let lists = Column::new_unqualified(call.schema_name().to_string());
        let kept: Vec<Expr> = self.rule.kept.iter().map(|c| column(*c)).collect();
        let measures = 0..self.rule.measures.len();
        let names = self.schema.fields().iter().map(|f| f.name().clone());
        let item = Expr::Column(Column::new_unqualified(LIST));
        let measures = measures.map(|i| match_field(item.clone(), i));
        let output = kept.iter().cloned().chain(measures);
        let output: Vec<Expr> = output.zip(names).map(|(e, name)| e.alias(name)).collect();
        let options = UnnestOptions::new().with_null_handling(NullHandling::Drop);
        LogicalPlanBuilder::from(rows)
            .window(vec![call])?
            .project(kept.into_iter().chain([Expr::Column(lists).alias(LIST)]))?
            .unnest_columns_with_options(vec![Column::new_unqualified(LIST)], options)?
            .project(output)?
            .build()
    }

    /// The names of the columns of PARTITION BY.
    fn partition_names(&self) -> Vec<String> {
        let columns = self.partition.iter().filter_map(|c| self.columns.get(*c));
        columns.map(|e| e.schema_name().to_string()).collect()
    }
}

fn rows(input: &LogicalPlan, columns: &[Expr]) -> DfResult<Schema> {
    let fields = columns
        .iter()
        .enumerate()
        .map(|(i, column)| Ok(Field::new(row_column(i), column.get_type(input.schema())?, true)));
    Ok(Schema::new(fields.collect::<DfResult<Vec<Field>>>()?))
}

impl PartialOrd for MatchRecognize {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for MatchRecognize {
    fn name(&self) -> &str {
        "MatchRecognize"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.columns.clone()
    }

    /// A condition on columns of PARTITION BY alone leaves whole partitions out.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let keys: Vec<&Expr> = self.partition.iter().map(|c| &self.columns[*c]).collect();
        let is_key = |c: &Column| {
            let alike = self.input.schema().fields().iter().filter(|f| *f.name() == c.name).count();
            let key = |e: &&Expr| matches!(e, Expr::Column(key) if key.name == c.name);
            alike == 1 && keys.iter().any(key)
        };
        let columns = self.schema.columns().into_iter();
        columns.filter(|c| !is_key(c)).map(|c| c.name).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let keys = self.partition_names();
        write!(f, "MatchRecognize: {} per [{}]", self.rule, keys.join(", "))
    }

    fn with_exprs_and_inputs(
        &self,
        columns: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DfResult<Self> {
        let Some(input) = inputs.pop() else { return plan_err!("a pattern is of rows") };
        Self::new(Parts {
            input,
            columns,
            partition: self.partition.clone(),
            order: self.order.clone(),
            rule: Arc::clone(&self.rule),
            conditions: self.conditions.clone(),
            aggregates: self.aggregates.clone(),
        })
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let columns = self.columns.iter().flat_map(Expr::column_refs);
        let mut needed: Vec<usize> =
            columns.filter_map(|c| schema.maybe_index_of_column(c)).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
