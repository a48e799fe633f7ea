//! Compiled expressions over deltas: [`Projection`] and [`Predicate`].
//!
//! A kernel fails for a whole batch. The batch is then cut in halves until the rows that fail stand
//! alone, so the cost of a bad row is a few evaluations and a good batch pays nothing. Rows that
//! fail are left out of the result and reported by their number in the input.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Operator, binary_expr, lit};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNotNullExpr};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::cast::cast_array;
use super::errors::from_datafusion;
use super::size::{in_slices, is_batch_too_large, spread};
use super::walk::Walk;
use crate::delta::DeltaBatch;
use crate::error::{Error, Result};

/// Nodes of a condition that is guarded by the one before it.
const GUARDED_MAX: usize = 200;

/// A row that an expression could not be computed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Its number in the input batch.
    pub row: usize,
    /// The SQLSTATE.
    pub sqlstate: &'static str,
    /// Why.
    pub reason: String,
}

/// Compiles an expression whose columns are those of `input`. Arithmetic that is left to
/// DataFusion's operators is checked for overflow.
pub fn compile(expr: &Expr, input: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let props = ExecutionProps::new();
    let context = PhysicalPlanningContext::default();
    let physical = create_physical_expr(expr, input, &props, &context).map_err(from_datafusion)?;
    check_overflow(physical).map_err(from_datafusion)
}

/// Makes every arithmetic operator of an expression fail on overflow instead of wrapping.
fn check_overflow(expr: Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>> {
    Ok(expr
        .transform_up(|e| {
            Ok(match e.downcast_ref::<BinaryExpr>() {
                Some(binary) if binary.op().is_numerical_operators() => {
                    let checked = binary.clone().with_fail_on_overflow(true);
                    Transformed::yes(Arc::new(checked) as Arc<dyn PhysicalExpr>)
                }
                _ => Transformed::no(e),
            })
        })?
        .data)
}

/// The columns that a list of expressions makes of a batch.
#[derive(Debug, Clone)]
pub struct Projection {
    exprs: Vec<Compiled>,
    output: SchemaRef,
}

#[derive(Debug, Clone)]
enum Compiled {
    /// A plain column, which costs nothing.
    Column(usize),
    Expr(Arc<dyn PhysicalExpr>),
}

impl Projection {
    /// Compiles `exprs` over `input`; their results have the types of `output`, one field each.
    pub fn new(exprs: &[Expr], input: &DFSchema, output: SchemaRef) -> Result<Self> {
        if exprs.len() != output.fields().len() {
            return Err(Error::internal("a projection needs one field per expression"));
        }
        let exprs = exprs
            .iter()
            .map(|e| {
                let physical = compile(e, input)?;
                Ok(match physical.downcast_ref::<Column>() {
                    Some(column) => Compiled::Column(column.index()),
                    None => Compiled::Expr(physical),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { exprs, output })
    }

    /// The schema of the result.
    pub fn schema(&self) -> &SchemaRef {
        &self.output
    }

    /// The input column behind each output column that is a plain reference.
    pub fn source_columns(&self) -> Vec<Option<usize>> {
        let source = |e: &Compiled| match e {
            Compiled::Column(i) => Some(*i),
            Compiled::Expr(_) => None,
        };
        self.exprs.iter().map(source).collect()
    }

    /// Computes the columns; rows that fail are left out and added to `errors`. `None`: they would
    /// be too large, the batch is to be cut.
    pub fn project(
        &self,
        batch: &DeltaBatch,
        errors: &mut Vec<RowError>,
    ) -> Result<Option<DeltaBatch>> {
        let can_cut = batch.len() > 1;
        match self.evaluate(batch.rows()) {
            Ok(columns) => {
                let rows = self.make_batch(columns, batch.len())?;
                return Ok(Some(batch.with_rows(rows)));
            }
            Err(error) if can_cut && is_batch_too_large(&error) => return Ok(None),
            Err(_) => {}
        }
        let before = errors.len();
        let mut parts = Vec::new();
        self.parts(batch.rows(), 0, errors, &mut parts)?;
        let whole = in_slices(batch.len(), || Ok(concat_batches(&self.output, &parts)?));
        let rows = match whole {
            Err(error) if can_cut && is_batch_too_large(&error) => {
                errors.truncate(before);
                return Ok(None);
            }
            rows => rows?,
        };
        let mut failed = errors[before..].iter().map(|e| e.row).peekable();
        let good = (0..batch.len()).map(|row| Some(failed.next_if_eq(&row).is_none()));
        let good = batch.filter(&good.collect())?;
        Ok(Some(good.with_rows(rows)))
    }

    /// The results of runs of rows, in order, without single rows that fail. The parts are kept
    /// and not computed again as a whole: `AND` skips its right side only where the left side is
    /// false in all rows, so rows that pass in parts can fail together.
    fn parts(
        &self,
        rows: &RecordBatch,
        first: usize,
        errors: &mut Vec<RowError>,
        parts: &mut Vec<RecordBatch>,
    ) -> Result<()> {
        match self.evaluate(rows) {
            Ok(columns) => parts.push(self.make_batch(columns, rows.num_rows())?),
            Err(e) if rows.num_rows() <= 1 => errors.push(row_error(first, &e)),
            Err(_) => {
                let half = rows.num_rows() / 2;
                self.parts(&rows.slice(0, half), first, errors, parts)?;
                let rest = rows.slice(half, rows.num_rows() - half);
                self.parts(&rest, first + half, errors, parts)?;
            }
        }
        Ok(())
    }

    fn make_batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        in_slices(rows.num_rows(), || self.columns(rows))
    }

    fn columns(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.exprs
            .iter()
            .zip(self.output.fields())
            .map(|(compiled, field)| {
                let array = match compiled {
                    Compiled::Column(i) => Arc::clone(rows.column(*i)),
                    Compiled::Expr(e) => {
                        spread(e.evaluate(rows).map_err(from_datafusion)?, rows.num_rows())?
                    }
                };
                match array.data_type() == field.data_type() {
                    true => Ok(array),
                    false => cast_array(&array, field.data_type()),
                }
            })
            .collect()
    }
}

/// A condition on rows; NULL counts as false.
#[derive(Debug, Clone)]
pub struct Predicate {
    expr: Arc<dyn PhysicalExpr>,
}

impl Predicate {
    /// Compiles a boolean expression over `input`.
    pub fn new(expr: &Expr, input: &DFSchema) -> Result<Self> {
        Ok(Self { expr: compile(&guard_condition(expr.clone()), input)? })
    }

    /// The columns of which it asks that they are not NULL, when it asks nothing else.
    pub fn not_null_columns(&self) -> Option<Vec<usize>> {
        not_null_columns(&self.expr)
    }

    /// The rows that pass; the batch itself when all do. Rows that fail are left out and added to
    /// `errors`.
    pub fn filter(&self, batch: &DeltaBatch, errors: &mut Vec<RowError>) -> Result<DeltaBatch> {
        let mask = self.mask(batch.rows(), errors)?;
        match mask.null_count() == 0 && mask.true_count() == mask.len() {
            true => Ok(batch.clone()),
            false => batch.filter(&mask),
        }
    }

    /// Which rows pass: no NULL in it. Rows that fail are false and added to `errors`.
    pub fn mask(&self, rows: &RecordBatch, errors: &mut Vec<RowError>) -> Result<BooleanArray> {
        match self.evaluate(rows) {
            Ok(mask) => Ok(mask),
            Err(_) => {
                let mut parts = Vec::new();
                self.mask_parts(rows, 0, errors, &mut parts);
                let arrays: Vec<&dyn Array> = parts.iter().map(|p| p as &dyn Array).collect();
                Ok(BooleanArray::from(concat(&arrays)?.to_data()))
            }
        }
    }

    /// The masks of runs of rows, in order, with single rows that fail as false.
    fn mask_parts(
        &self,
        rows: &RecordBatch,
        first: usize,
        errors: &mut Vec<RowError>,
        parts: &mut Vec<BooleanArray>,
    ) {
        match self.evaluate(rows) {
            Ok(mask) => parts.push(mask),
            Err(e) if rows.num_rows() == 1 => {
                errors.push(row_error(first, &e));
                parts.push(BooleanArray::from(vec![false]));
            }
            Err(_) => {
                let half = rows.num_rows() / 2;
                self.mask_parts(&rows.slice(0, half), first, errors, parts);
                let rest = rows.slice(half, rows.num_rows() - half);
                self.mask_parts(&rest, first + half, errors, parts);
            }
        }
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let array = in_slices(rows.num_rows(), || {
            let value = self.expr.evaluate(rows).map_err(from_datafusion)?;
            value.into_array(rows.num_rows()).map_err(from_datafusion)
        })?;
        let array = match array.data_type() {
            DataType::Boolean => array,
            DataType::Null => cast_array(&array, &DataType::Boolean)?,
            other => return Err(Error::internal(format!("a condition of type {other}"))),
        };
        let mask = BooleanArray::from(array.to_data());
        match mask.null_count() {
            0 => Ok(mask),
            _ => Ok(arrow::compute::prep_null_mask_filter(&mask)),
        }
    }
}

fn not_null_columns(expr: &Arc<dyn PhysicalExpr>) -> Option<Vec<usize>> {
    if let Some(both) = expr.downcast_ref::<BinaryExpr>() {
        let (left, right) = (not_null_columns(both.left())?, not_null_columns(both.right())?);
        return (*both.op() == Operator::And).then(|| [left, right].concat());
    }
    let column = expr.downcast_ref::<IsNotNullExpr>()?.arg().downcast_ref::<Column>()?;
    Some(vec![column.index()])
}

pub(super) fn row_error(row: usize, e: &Error) -> RowError {
    RowError { row, sqlstate: e.sqlstate(), reason: e.message().to_string() }
}

/// Makes the conditions of a filter that stand behind others see only the rows that got so far:
/// `x <> 0 AND 1 / x > 2` must not divide by zero. DataFusion computes both sides for all rows.
/// NULL and false are one for a filter, so AND and OR at its top can become CASE.
pub(crate) fn guard_condition(expr: Expr) -> Expr {
    let Expr::BinaryExpr(binary) = expr else { return expr };
    if !matches!(binary.op, Operator::And | Operator::Or) {
        return Expr::BinaryExpr(binary);
    }
    let (op, left) = (binary.op, guard_condition(*binary.left));
    let right = guard_condition(*binary.right);
    if !can_fail(&right) {
        return binary_expr(left, op, right);
    }
    let (then, otherwise) = match op {
        Operator::And => (right, lit(false)),
        _ => (lit(true), right),
    };
    Expr::Case(Case {
        expr: None,
        when_then_expr: vec![(Box::new(left), Box::new(then))],
        else_expr: Some(Box::new(otherwise)),
    })
}

/// The same for AND and OR whose value is asked for, NULL apart from false: what is decided by the
/// left side alone is not computed by the right one. The optimiser makes such of `CASE WHEN x = 0
/// THEN true ELSE 1 / x > 2 END`.
pub(crate) fn guard_values(expr: Expr) -> DfResult<Transformed<Expr>> {
    expr.transform_up(|e| {
        let Expr::BinaryExpr(binary) = e else { return Ok(Transformed::no(e)) };
        let op = binary.op;
        let is_guard = matches!(op, Operator::And | Operator::Or) && can_fail(&binary.right);
        if !is_guard || !is_small(&binary.right) {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        }
        let (left, right) = (*binary.left, *binary.right);
        let decides = op == Operator::Or;
        let decided = (Box::new(lit(decides)), Box::new(lit(decides)));
        let open = (Box::new(lit(!decides)), Box::new(right.clone()));
        let unknown = binary_expr(right, op, lit(ScalarValue::Boolean(None)));
        Ok(Transformed::yes(Expr::Case(Case {
            expr: Some(Box::new(left)),
            when_then_expr: vec![decided, open],
            else_expr: Some(Box::new(unknown)),
        })))
    })
}

/// Whether [`guard_values`] has something to do.
pub(crate) fn is_guarded(expr: &Expr) -> DfResult<bool> {
    expr.exists(|e| match e {
        Expr::BinaryExpr(b) => {
            Ok(matches!(b.op, Operator::And | Operator::Or) && can_fail(&b.right))
        }
        _ => Ok(false),
    })
}

/// Whether an expression may be there twice: of those in one another each would double the next.
fn is_small(expr: &Expr) -> bool {
    let mut nodes = 0;
    let visited = expr.apply(|_| {
        nodes += 1;
        Ok(if nodes > GUARDED_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.is_ok() && nodes <= GUARDED_MAX
}

fn can_fail(expr: &Expr) -> bool {
    // Casts that can fail are functions too.
    expr.exists(|e| Ok(matches!(e, Expr::ScalarFunction(_)))).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::text::display_value;
    use crate::expr::{ArithOp, arith};
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::col;

    fn input() -> (DFSchema, DeltaBatch) {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int32, true),
            Field::new("s", DataType::Utf8, true),
        ]));
        let rows = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(Int32Array::from(vec![Some(1), Some(0), None, Some(i32::MAX), Some(5)])),
                Arc::new(StringArray::from(vec!["1", "2", "x", "4", "5"])),
            ],
        )
        .expect("a batch");
        let weights = Int64Array::from(vec![1, -1, 1, 2, 1]);
        let df = DFSchema::try_from(schema).expect("a schema");
        (df, DeltaBatch::new(rows, weights))
    }

    fn output(name: &str, data_type: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new(name, data_type, true)]))
    }

    #[test]
    fn a_failing_row_is_left_out_and_its_neighbours_arrive() {
        let (schema, batch) = input();
        let expr = arith(ArithOp::Div, lit(10i32), col("a"));
        let p = Projection::new(&[expr], &schema, output("q", DataType::Int32)).expect("compiles");
        let mut errors = Vec::new();
        let out = p.project(&batch, &mut errors).expect("projects").expect("fits");
        let values: Vec<_> =
            (0..out.len()).map(|i| display_value(out.rows().column(0), i)).collect();
        assert_eq!(values, [Some("10".into()), None, Some("0".into()), Some("2".into())]);
        assert_eq!((0..4).map(|i| out.weight(i)).collect::<Vec<_>>(), [1, 1, 2, 1]);
        let error = RowError { row: 1, sqlstate: "22012", reason: "division by zero".into() };
        assert_eq!(errors, [error]);
    }

    #[test]
    fn integers_overflow_with_an_error() {
        let (schema, batch) = input();
        let expr = arith(ArithOp::Add, col("a"), lit(1i32));
        let p = Projection::new(&[expr], &schema, output("q", DataType::Int32)).expect("compiles");
        let mut errors = Vec::new();
        assert_eq!(p.project(&batch, &mut errors).expect("projects").expect("fits").len(), 4);
        let error = RowError { row: 3, sqlstate: "22003", reason: "integer out of range".into() };
        assert_eq!(errors, [error]);
    }

    #[test]
    fn a_predicate_drops_null_and_reports_failing_rows() {
        let (schema, batch) = input();
        let cast = super::super::cast_udf(&DataType::Int32, super::super::Coercion::Explicit);
        let p =
            Predicate::new(&cast.call(vec![col("s")]).gt(lit(1i32)), &schema).expect("compiles");
        let mut errors = Vec::new();
        let out = p.filter(&batch, &mut errors).expect("filters");
        assert_eq!(out.len(), 3);
        assert_eq!((errors.len(), errors[0].row), (1, 2));
        assert_eq!(errors[0].reason, "invalid input syntax for type integer: \"x\"");
        // NULL is not true.
        let p = Predicate::new(&col("a").gt_eq(lit(0i32)), &schema).expect("compiles");
        assert_eq!(p.filter(&batch, &mut errors).expect("filters").len(), 4);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn later_conditions_see_only_rows_that_got_so_far() {
        let (schema, batch) = input();
        let quotient = arith(ArithOp::Div, lit(10i32), col("a"));
        let condition = col("a").not_eq(lit(0i32)).and(quotient.clone().gt(lit(1i32)));
        let mut errors = Vec::new();
        let p = Predicate::new(&condition, &schema).expect("compiles");
        assert_eq!(p.filter(&batch, &mut errors).expect("filters").len(), 2);
        let condition = col("a").eq(lit(0i32)).or(quotient.gt(lit(1i32)));
        let p = Predicate::new(&condition, &schema).expect("compiles");
        assert_eq!(p.filter(&batch, &mut errors).expect("filters").len(), 3);
        assert_eq!(errors, []);
        // As a column, the condition is computed by parts.
        let p = Projection::new(&[condition], &schema, output("c", DataType::Boolean));
        let out =
            p.expect("compiles").project(&batch, &mut errors).expect("projects").expect("fits");
        assert_eq!((out.len(), errors.len()), (5, 0));
    }

    #[test]
    fn plain_columns_and_all_true_masks_are_not_copied() {
        let (schema, batch) = input();
        let p =
            Projection::new(&[col("s")], &schema, output("s", DataType::Utf8)).expect("compiles");
        let out = p.project(&batch, &mut Vec::new()).expect("projects").expect("fits");
        assert!(Arc::ptr_eq(out.rows().column(0), batch.rows().column(1)));
        assert_eq!(p.source_columns(), [Some(1)]);
        let all = Predicate::new(&lit(true), &schema).expect("compiles");
        let out = all.filter(&batch, &mut Vec::new()).expect("filters");
        assert!(Arc::ptr_eq(out.rows().column(0), batch.rows().column(0)));
    }
}
