//! The types of a recursive query's columns: those of the non-recursive term. The recursive term
//! may have what fits them; where it has more, the query is refused, as in PostgreSQL. Numerics
//! that differ in their digits meet as numerics of which nothing was declared.

use arrow::datatypes::DataType;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::node::{Recursion, scan_work_table, work_table};
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{Coercion, WalkPlan, cast_expr, to_datafusion};
use crate::sql::comparable::{cannot_be_matched, is_text, normal_type};
use crate::sql::names::unmarked;
use crate::sql::set_types::{is_unknown_column, type_column};

/// A numeric of which nothing was declared.
const NUMERIC: DataType = DataType::Decimal128(38, 10);

/// Gives both terms their types; `rewrite` gives a plan PostgreSQL's meaning.
pub(in crate::sql) fn typed(
    node: &Recursion,
    mut rewrite: impl FnMut(LogicalPlan) -> DfResult<LogicalPlan>,
) -> DfResult<LogicalPlan> {
    let base = rewrite(node.base.clone())?;
    let own = base.schema().fields().iter();
    let mut types: Vec<DataType> = own.map(|field| settled(field.data_type())).collect();
    loop {
        let mut step = rewrite(reading(node.step.clone(), &node.id, &types)?)?;
        let mut again = false;
        for (column, to) in types.iter_mut().enumerate() {
            if is_unknown_column(&step, column) && !is_text(to) {
                step = type_column(step, column, to)?;
            }
            let from = step.schema().field(column).data_type().clone();
            match fits(&from, to) {
                Fit::Fits => {}
                Fit::AsNumeric => {
                    *to = NUMERIC;
                    again = true;
                }
                Fit::Never => return Err(to_datafusion(mismatch(node, column, &from, to))),
            }
        }
        if !again {
            let [base, step] = [base, step].map(|term| cast(term, &types));
            return node.over(base?, step?);
        }
    }
}

/// The type that the engine has for values of a type.
fn settled(of: &DataType) -> DataType {
    match of {
        DataType::Null => DataType::Utf8,
        other => normal_type(other).unwrap_or_else(|| other.clone()),
    }
}

/// The step, reading a work table of these types.
fn reading(step: LogicalPlan, id: &str, types: &[DataType]) -> DfResult<LogicalPlan> {
    let step = step.map_nodes_up(|node| match node {
        LogicalPlan::TableScan(scan) => match work_table(&scan) {
            Some(work) if work.id == id => {
                let name = scan.table_name.clone();
                scan_work_table(name, work.of_types(types)).map(Transformed::yes)
            }
            _ => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        other => Ok(Transformed::no(other)),
    });
    step.map(|t| t.data)
}

enum Fit {
    Fits,
    /// Both as numerics of which nothing was declared.
    AsNumeric,
    Never,
}

fn fits(from: &DataType, to: &DataType) -> Fit {
    let rank = |t: &DataType| match t {
        DataType::Int16 => Some(0),
        DataType::Int32 => Some(1),
        DataType::Int64 => Some(2),
        DataType::Decimal128(..) => Some(3),
        DataType::Float32 => Some(4),
        DataType::Float64 => Some(5),
        _ => None,
    };
    if from == to || *from == DataType::Null || settled(from) == *to {
        return Fit::Fits;
    }
    match (rank(from), rank(to)) {
        (Some(_), Some(3)) if *to == NUMERIC => match rank(from) > Some(3) {
            true => Fit::Never,
            false => Fit::Fits,
        },
        (Some(from), Some(3)) if from <= 3 => Fit::AsNumeric,
        (Some(from), Some(to)) if from < to => Fit::Fits,
        _ => match (from, to) {
            (DataType::Date32, DataType::Timestamp(..)) => Fit::Fits,
            (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => Fit::Fits,
            _ => Fit::Never,
        },
    }
}

fn mismatch(node: &Recursion, column: usize, from: &DataType, to: &DataType) -> Error {
    let kind = |t: &DataType| match t {
        t if t.is_numeric() => 0,
        DataType::Date32 | DataType::Timestamp(..) => 1,
        _ => 2,
    };
    if kind(from) != kind(to) || kind(from) == 2 {
        return cannot_be_matched("UNION", to, from);
    }
    let [overall, to] = [from, to].map(pg_type_name);
    let message = format!(
        "recursive query \"{}\" column {} has type {to} in non-recursive term but type {overall} \
         overall",
        unmarked(&node.id),
        column + 1
    );
    Error::user(sqlstate::DATATYPE_MISMATCH, message)
        .with_hint("Cast the output of the non-recursive term to the correct type.")
}

/// A term with its columns cast.
fn cast(term: LogicalPlan, types: &[DataType]) -> DfResult<LogicalPlan> {
    let schema = term.schema().clone();
    if schema.fields().iter().zip(types).all(|(field, to)| field.data_type() == to) {
        return Ok(term);
    }
    let columns = schema.iter().zip(types).map(|((qualifier, field), to)| -> Result<Expr> {
        let column = Expr::from((qualifier, field));
        let cast = cast_expr(column, field.data_type(), to, Coercion::Explicit)?;
        Ok(cast.alias_qualified(qualifier.cloned(), field.name()))
    });
    let columns = columns.collect::<Result<Vec<_>>>().map_err(to_datafusion)?;
    LogicalPlanBuilder::from(term).project(columns)?.build()
}
