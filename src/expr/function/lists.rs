//! Lists that are unnested, piece by piece: a series is not made as a whole, and a list of one row
//! that other columns stand beside is not repeated before its elements are wanted.
//!
//! A piece has some rows of a batch, a row more than once when its lists go on, and for each list
//! the elements that belong there. Unnesting the pieces one after the other gives what unnesting
//! the whole lists side by side would: all lists of a row are cut at the same places, and a row
//! without elements is in one piece, once.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use datafusion::physical_expr::expressions::Column as ColumnExpr;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::args::Args;
use super::series::{self, Series};
use super::{PgFunction, list_of};
use crate::error::{Error, Result};
use crate::expr::errors::from_datafusion;
use crate::expr::eval::{RowError, row_error};
use crate::expr::size::widest;

/// How the lists of a column come about.
#[derive(Debug, Clone)]
pub enum ListSource {
    /// `generate_series` of other expressions.
    Series {
        /// The function.
        function: Arc<ScalarUDF>,
        /// Its arguments.
        arguments: Vec<Arc<dyn PhysicalExpr>>,
        /// The type of its values.
        element: DataType,
    },
    /// The numbers of the elements of other lists: WITH ORDINALITY.
    Ordinality(Vec<ListSource>),
    /// Any other expression.
    Whole(Arc<dyn PhysicalExpr>),
}

impl ListSource {
    /// The lists of a column.
    pub fn column(index: usize) -> Self {
        Self::Whole(Arc::new(ColumnExpr::new("", index)))
    }

    /// Looks at an expression that gives lists.
    pub fn of(expr: &Arc<dyn PhysicalExpr>) -> Self {
        let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() else {
            return Self::Whole(Arc::clone(expr));
        };
        let own = call.fun().inner().downcast_ref::<PgFunction>();
        match (own.map(|f| f.name), call.return_type()) {
            (Some("generate_series"), DataType::List(field)) => Self::Series {
                function: Arc::new(call.fun().clone()),
                arguments: call.args().to_vec(),
                element: field.data_type().clone(),
            },
            (Some("pg_ordinality"), _) => {
                Self::Ordinality(call.args().iter().map(Self::of).collect())
            }
            _ => Self::Whole(Arc::clone(expr)),
        }
    }

    fn open(&self, batch: &RecordBatch) -> Result<Lists> {
        let value = |e: &Arc<dyn PhysicalExpr>| e.evaluate(batch).map_err(from_datafusion);
        match self {
            Self::Series { function, arguments, element } => {
                let values = arguments.iter().map(value).collect::<Result<Vec<_>>>()?;
                let own = function.inner().downcast_ref::<PgFunction>();
                let own = own.ok_or_else(|| Error::internal("a series is a function of ours"))?;
                let types: Vec<DataType> = values.iter().map(ColumnarValue::data_type).collect();
                let found = own.resolve(&types)?;
                let result = Cow::Owned(list_of(element));
                let args = Args::new(&values, &found, result, batch.num_rows());
                Ok(Lists::Series(args.map_err(from_datafusion)?))
            }
            Self::Ordinality(of) => {
                Ok(Lists::Ordinality(of.iter().map(|s| s.open(batch)).collect::<Result<_>>()?))
            }
            Self::Whole(expr) => {
                let (array, constant) = match value(expr)? {
                    ColumnarValue::Array(array) => (array, false),
                    ColumnarValue::Scalar(one) => (one.to_array().map_err(from_datafusion)?, true),
                };
                let list = array.as_list_opt::<i32>();
                let list = list.ok_or_else(|| Error::internal("UNNEST is of lists"))?.clone();
                Ok(Lists::Whole { list, constant })
            }
        }
    }

    /// The type of the elements.
    fn element(&self, batch: &RecordBatch) -> Result<DataType> {
        match self {
            Self::Series { element, .. } => Ok(element.clone()),
            Self::Ordinality(_) => Ok(DataType::Int64),
            Self::Whole(expr) => {
                let list = expr.data_type(batch.schema_ref()).map_err(from_datafusion)?;
                match list {
                    DataType::List(field) => Ok(field.data_type().clone()),
                    _ => Err(Error::internal("UNNEST is of lists")),
                }
            }
        }
    }
}

/// The lists of a batch.
enum Lists {
    Series(Args<'static>),
    Ordinality(Vec<Lists>),
    Whole { list: ListArray, constant: bool },
}

impl Lists {
    /// The list of a row from its beginning.
    fn of_row(&self, row: usize) -> Result<Cursor> {
        match self {
            Self::Series(args) => match args.skips(row) {
                true => Ok(Cursor::Null),
                false => Ok(Cursor::Series(Series::of(args, row)?)),
            },
            Self::Ordinality(of) => {
                let of = of.iter().map(|lists| lists.of_row(row)).collect::<Result<_>>()?;
                Ok(Cursor::Ordinality { at: 0, of })
            }
            Self::Whole { list, constant } => {
                let row = if *constant { 0 } else { row };
                match list.is_null(row) {
                    true => Ok(Cursor::Null),
                    false => {
                        let offsets = list.value_offsets();
                        Ok(Cursor::Places(offsets[row] as usize..offsets[row + 1] as usize))
                    }
                }
            }
        }
    }
}

/// What is left of the list of a row.
enum Cursor {
    Null,
    Series(Series),
    Ordinality {
        at: i128,
        of: Vec<Cursor>,
    },
    /// Places among the values of the column's lists.
    Places(std::ops::Range<usize>),
}

impl Cursor {
    /// Takes some elements, as many as there are and at most `limit`; how many.
    fn take(&mut self, limit: usize, out: &mut Vec<i128>) -> Result<usize> {
        let before = out.len();
        match self {
            Self::Null => {}
            Self::Series(series) => {
                while out.len() - before < limit {
                    let Some(value) = series.next()? else { break };
                    out.push(value);
                }
            }
            Self::Ordinality { at, of } => {
                let mut longest = 0;
                let mut unused = Vec::new();
                for cursor in of {
                    unused.clear();
                    longest = longest.max(cursor.take(limit, &mut unused)?);
                }
                out.extend((1..=longest as i128).map(|i| *at + i));
                *at += longest as i128;
            }
            Self::Places(places) => {
                let end = places.end.min(places.start.saturating_add(limit));
                out.extend((places.start..end).map(|i| i as i128));
                places.start = end;
            }
        }
        Ok(out.len() - before)
    }
}

/// Some rows of a batch with some elements of their lists.
pub(crate) struct Piece {
    /// The rows, ascending; one whose lists go on is in the next piece again.
    pub(crate) rows: UInt32Array,
    /// The lists.
    pub(crate) lists: Vec<ArrayRef>,
}

/// The lists of a batch, handed out in pieces.
pub(crate) struct Pieces {
    lists: Vec<Lists>,
    elements: Vec<DataType>,
    /// The lists of the row at hand, where it has begun.
    begun: Option<Vec<Cursor>>,
    row: usize,
    rows: usize,
}

/// A column of lists under construction.
struct Column {
    values: Vec<i128>,
    offsets: Vec<i32>,
    valid: Vec<bool>,
}

impl Pieces {
    /// Evaluates what the lists are made of.
    pub(crate) fn of(sources: &[ListSource], batch: &RecordBatch) -> Result<Self> {
        Ok(Self {
            lists: sources.iter().map(|s| s.open(batch)).collect::<Result<_>>()?,
            elements: sources.iter().map(|s| s.element(batch)).collect::<Result<_>>()?,
            begun: None,
            row: 0,
            rows: batch.num_rows(),
        })
    }

    /// About the bytes of the widest element of the lists.
    pub(crate) fn widest_element(&self) -> usize {
        let element = |lists: &Lists| match lists {
            Lists::Whole { list, .. } => widest(list.values()),
            _ => size_of::<i128>(),
        };
        self.lists.iter().map(element).sum()
    }

    /// The next piece, of at most `limit` rows once it is unnested; `None` at the end. `limit` is
    /// at least one. A row whose lists fail ends it, or is left out and added to `errors`.
    pub(crate) fn next(
        &mut self,
        limit: usize,
        mut errors: Option<&mut Vec<RowError>>,
    ) -> Result<Option<Piece>> {
        let empty = || Column { values: Vec::new(), offsets: vec![0], valid: Vec::new() };
        let mut columns: Vec<Column> = self.lists.iter().map(|_| empty()).collect();
        let (mut rows, mut room) = (Vec::new(), limit);
        while self.row < self.rows && room > 0 {
            let first = self.begun.is_none();
            let longest = match (self.take(room, &mut columns), &mut errors) {
                (Ok(longest), _) => longest,
                (Err(error), None) => return Err(error),
                (Err(error), Some(errors)) => {
                    errors.push(row_error(self.row, &error));
                    columns.iter_mut().for_each(|column| column.keep(rows.len()));
                    self.row += 1;
                    self.begun = None;
                    continue;
                }
            };
            // What is known to have ended would give a row of NULLs where rows without elements
            // stay.
            match longest > 0 || first {
                true => rows.push(self.row as u32),
                false => columns.iter_mut().for_each(|column| column.keep(rows.len())),
            }
            if longest < room {
                self.row += 1;
                self.begun = None;
            }
            room -= longest.max(usize::from(first)).min(room);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let columns = columns.into_iter().zip(&self.lists).zip(&self.elements);
        let lists = columns.map(|((column, lists), element)| column.finish(lists, element));
        Ok(Some(Piece { rows: rows.into(), lists: lists.collect::<Result<_>>()? }))
    }

    /// Takes elements of the lists of the row at hand, side by side; how many of the longest.
    fn take(&mut self, limit: usize, columns: &mut [Column]) -> Result<usize> {
        let cursors = match &mut self.begun {
            Some(cursors) => cursors,
            None => {
                let lists = self.lists.iter();
                let row = lists.map(|l| l.of_row(self.row)).collect::<Result<_>>()?;
                self.begun.insert(row)
            }
        };
        let mut longest = 0;
        for (cursor, column) in cursors.iter_mut().zip(columns) {
            longest = longest.max(cursor.take(limit, &mut column.values)?);
            column.offsets.push(column.values.len() as i32);
            column.valid.push(!matches!(cursor, Cursor::Null));
        }
        Ok(longest)
    }
}

impl Column {
    /// Forgets what is behind the first rows.
    fn keep(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.valid.truncate(rows);
        self.values.truncate(self.offsets.last().map_or(0, |offset| *offset as usize));
    }

    fn finish(self, lists: &Lists, element: &DataType) -> Result<ArrayRef> {
        let values = match lists {
            Lists::Whole { list, .. } => {
                let places = self.values.iter().map(|place| *place as u64);
                take(list.values(), &UInt64Array::from_iter_values(places), None)?
            }
            _ => series::values(&self.values, element)?,
        };
        let field = match lists {
            Lists::Whole { list, .. } => match list.data_type() {
                DataType::List(field) => Arc::clone(field),
                _ => return Err(Error::internal("UNNEST is of lists")),
            },
            _ => Arc::new(Field::new_list_field(element.clone(), true)),
        };
        let offsets = OffsetBuffer::new(self.offsets.into());
        Ok(Arc::new(ListArray::try_new(field, offsets, values, Some(self.valid.into()))?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{Int64Type, Schema};

    use super::*;

    /// The rows and elements of pieces of a batch with a column of ends and one of lists.
    fn pieces(limit: usize) -> Vec<String> {
        let ends = Int64Array::from(vec![Some(5), Some(0), None, Some(2)]);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(10)]),
            Some(vec![]),
            Some(vec![Some(20), Some(21), Some(22)]),
            None,
        ]);
        let fields = vec![
            Field::new("n", DataType::Int64, true),
            Field::new("a", lists.data_type().clone(), true),
        ];
        let batch = RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            vec![Arc::new(ends) as ArrayRef, Arc::new(lists)],
        );
        let batch = batch.expect("a batch");
        let one = crate::expr::call(
            "generate_series",
            vec![datafusion::logical_expr::lit(1_i64), datafusion::logical_expr::col("n")],
        );
        let schema = datafusion::common::DFSchema::try_from(batch.schema()).expect("a schema");
        let series = crate::expr::compile(&one.expect("a function"), &schema).expect("compiles");
        let sources = [ListSource::of(&series), ListSource::column(1)];
        assert!(matches!(sources[0], ListSource::Series { .. }));
        let sources =
            [sources[0].clone(), sources[1].clone(), ListSource::Ordinality(sources.to_vec())];
        let mut open = Pieces::of(&sources, &batch).expect("opens");
        let mut all = Vec::new();
        while let Some(piece) = open.next(limit, None).expect("has no errors") {
            let lists = piece.lists.iter().map(|list| {
                let list = list.as_list::<i32>();
                let value = |i: usize| list.value(i).as_primitive::<Int64Type>().values().to_vec();
                let rows = 0..list.len();
                rows.map(|i| if list.is_null(i) { vec![-1] } else { value(i) }).collect::<Vec<_>>()
            });
            let lists = lists.collect::<Vec<_>>();
            all.push(format!("{:?} {lists:?}", piece.rows.values().to_vec()));
        }
        all
    }

    #[test]
    fn lists_are_cut_at_the_same_places() {
        let whole = pieces(100);
        assert_eq!(
            whole,
            ["[0, 1, 2, 3] [[[1, 2, 3, 4, 5], [], [-1], [1, 2]], \
              [[10], [], [20, 21, 22], [-1]], [[1, 2, 3, 4, 5], [], [1, 2, 3], [1, 2]]]"]
        );
        assert_eq!(
            pieces(3),
            [
                "[0] [[[1, 2, 3]], [[10]], [[1, 2, 3]]]",
                "[0, 1] [[[4, 5], []], [[], []], [[4, 5], []]]",
                "[2] [[[-1]], [[20, 21, 22]], [[1, 2, 3]]]",
                "[3] [[[1, 2]], [[-1]], [[1, 2]]]",
            ]
        );
    }
}
