//! The plan nodes of a recursive query: both terms, and the scan by which the recursive one reads
//! the rows of the last round.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult, TableReference, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, RecursiveQuery, TableScan, TableSource,
    UserDefinedLogicalNodeCore,
};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor, Value};

use super::syntax::{RECURSION, WORK_TABLE};
use crate::error::{Error, Result, sqlstate};
use crate::expr::to_datafusion;
use crate::sql::errors::plan_error;
use crate::sql::names::{MARK, unmarked};

/// A recursive query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recursion {
    /// What tells it from those inside of it: its name and a mark.
    pub id: String,
    /// The non-recursive term.
    pub base: LogicalPlan,
    /// The recursive term: it scans a [`WorkTable`] of the same id.
    pub step: LogicalPlan,
    /// UNION: every row once. UNION ALL: as often as it is derived.
    pub distinct: bool,
    schema: DFSchemaRef,
}

/// The rows of the last round of a recursive query, which its recursive term reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkTable {
    /// Whose rows they are.
    pub id: String,
    /// Their columns.
    pub schema: SchemaRef,
}

impl TableSource for WorkTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// The work table that is scanned.
pub fn work_table(scan: &TableScan) -> Option<&WorkTable> {
    (scan.source.as_ref() as &dyn std::any::Any).downcast_ref()
}

/// The recursive query that a node is.
pub fn as_recursion(node: &Extension) -> Option<&Recursion> {
    node.node.as_ref().as_any().downcast_ref()
}

impl WorkTable {
    /// The same rows with columns of these types.
    pub(super) fn of_types(&self, types: &[DataType]) -> Self {
        let fields = self.schema.fields().iter().zip(types);
        let fields = fields.map(|(f, to)| f.as_ref().clone().with_data_type(to.clone()));
        Self { id: self.id.clone(), schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())) }
    }

    /// The name of the query.
    pub fn name(&self) -> &str {
        unmarked(&self.id)
    }
}

/// The scan of a work table.
pub(super) fn scan_work_table(name: TableReference, table: WorkTable) -> DfResult<LogicalPlan> {
    LogicalPlanBuilder::scan(name, Arc::new(table), None)?.build()
}

/// Plans the functions of private names; `None` for all others.
pub(in crate::sql) fn plan(
    function: &str,
    args: &[FunctionArg],
    context: &mut dyn RelationPlannerContext,
) -> Option<Result<LogicalPlan>> {
    let function = function.strip_prefix(MARK)?;
    match function {
        RECURSION => Some(plan_recursion(args, context)),
        WORK_TABLE => Some(plan_work_table(args, context)),
        _ => None,
    }
}

fn plan_recursion(
    args: &[FunctionArg],
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let [base, step, id, distinct] = args else { return Err(malformed()) };
    let (base, step) = (term(base, context)?, term(step, context)?);
    let widths = [&base, &step].map(|term| term.schema().fields().len());
    if widths[0] != widths[1] {
        let message = "each UNION query must have the same number of columns";
        return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
    }
    let distinct = matches!(value(distinct), Some(Value::Boolean(true)));
    let node = Recursion { id: text(id)?, schema: columns(&base)?, base, step, distinct };
    Ok(node.plan())
}

fn plan_work_table(
    args: &[FunctionArg],
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let [base, id] = args else { return Err(malformed()) };
    let schema = columns(&term(base, context)?)?;
    let id = text(id)?;
    let table = WorkTable { schema: Arc::new(schema.as_arrow().clone()), id };
    let name = TableReference::bare(table.name().to_owned());
    scan_work_table(name, table).map_err(plan_error)
}

fn malformed() -> Error {
    Error::internal("a recursive query has two terms and a name")
}

/// The plan of a term.
fn term(arg: &FunctionArg, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Subquery(query))) = arg else {
        return Err(malformed());
    };
    let subquery = query.clone();
    let derived = TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
    context.plan(derived).map_err(plan_error)
}

fn value(arg: &FunctionArg) -> Option<&Value> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(value))) => Some(&value.value),
        _ => None,
    }
}

fn text(arg: &FunctionArg) -> Result<String> {
    match value(arg) {
        Some(Value::SingleQuotedString(text)) => Ok(text.clone()),
        _ => Err(malformed()),
    }
}

/// The columns of a recursive query by its non-recursive term. Any of them can be NULL.
fn columns(base: &LogicalPlan) -> Result<DFSchemaRef> {
    let mut seen = HashSet::new();
    let fields = base.schema().fields().iter().enumerate().map(|(i, field)| {
        // Columns of a join can have one name; what is behind the mark is not shown.
        let name = match seen.insert(field.name().as_str()) {
            true => field.name().clone(),
            false => format!("{}{MARK}{i}", unmarked(field.name())),
        };
        (None, Arc::new(Field::new(name, field.data_type().clone(), true)))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), Default::default());
    schema.map(Arc::new).map_err(plan_error)
}

impl Recursion {
    fn plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The name of the query.
    pub fn name(&self) -> &str {
        unmarked(&self.id)
    }

    /// The same query of other terms.
    pub(super) fn over(&self, base: LogicalPlan, step: LogicalPlan) -> DfResult<LogicalPlan> {
        self.with_exprs_and_inputs(Vec::new(), vec![base, step]).map(Self::plan)
    }

    /// The same as a node that DataFusion can run.
    pub(in crate::sql) fn executable(&self) -> DfResult<LogicalPlan> {
        let named = |term: &LogicalPlan| -> DfResult<Arc<LogicalPlan>> {
            let columns = term.schema().columns().into_iter().zip(self.schema.fields());
            let columns = columns.map(|(c, field)| Expr::Column(c).alias(field.name()));
            let plan = LogicalPlanBuilder::from(term.clone()).project(columns)?.build()?;
            Ok(Arc::new(plan))
        };
        let (base, step) = (named(&self.base)?, named(&self.step)?);
        let query = RecursiveQuery::try_new(self.id.clone(), base, step, self.distinct)?;
        Ok(LogicalPlan::RecursiveQuery(query))
    }
}

impl WorkTable {
    /// The same as a table that DataFusion can run.
    pub(in crate::sql) fn provider(&self) -> CteWorkTable {
        CteWorkTable::new(&self.id, self.schema.clone())
    }
}

impl PartialOrd for Recursion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Recursion {
    fn name(&self) -> &str {
        "Recursion"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.base, &self.step]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let union = if self.distinct { "UNION" } else { "UNION ALL" };
        write!(f, "Recursion: {}, {union}", self.name())
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let Ok([base, step]) = <[LogicalPlan; 2]>::try_from(inputs) else {
            return plan_err!("a recursive query has two terms");
        };
        let schema = columns(&base).map_err(to_datafusion)?;
        Ok(Self { id: self.id.clone(), base, step, distinct: self.distinct, schema })
    }
}
