//! Sources with computed columns: what reads knows nothing of them, and they are put among the
//! columns that it has read. A row of which one can't be computed is rejected, as a message that
//! can't be decoded is, with what was read of it as JSON in the place of its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;

use super::{
    Again, ComputedColumn, ConnectorSpec, Continuation, Edge, Included, Position, Positions, Read,
    Rejected, Source, SourceBatch, SplitId, SplitReader,
};
use crate::delta::DeltaBatch;
use crate::delta::style::TextStyle;
use crate::delta::zone::Zone;
use crate::error::{Error, Result};
use crate::expr::{Projection, from_datafusion};
use crate::format::{FormatSpec, project};

/// What a connector is told of a relation with computed columns: the others.
pub fn without_computed(spec: &ConnectorSpec, columns: &[ComputedColumn]) -> Result<ConnectorSpec> {
    let read = read_columns(&spec.schema, columns);
    let place = |column: &usize| read.binary_search(column).unwrap_or_default();
    let include = spec.include.iter();
    let include = include.map(|i| Included { column: place(&i.column), what: i.what.clone() });
    Ok(ConnectorSpec {
        schema: project(&spec.schema, &read)?,
        key: spec.key.iter().map(place).collect(),
        include: include.collect(),
        ..spec.clone()
    })
}

/// A source, of [`without_computed`], with the columns that are computed of its rows.
pub fn computing(
    inner: Arc<dyn Source>,
    schema: &SchemaRef,
    columns: Vec<ComputedColumn>,
    (qualifier, zone): (&str, Zone),
) -> Arc<dyn Source> {
    let read = read_columns(schema, &columns);
    let (schema, qualifier) = (schema.clone(), qualifier.to_owned());
    Arc::new(Computing { inner, schema, columns, read, qualifier, zone })
}

/// The columns that are not computed.
fn read_columns(schema: &Schema, columns: &[ComputedColumn]) -> Vec<usize> {
    let computed = |at: &usize| columns.iter().any(|c| c.column == *at);
    (0..schema.fields().len()).filter(|at| !computed(at)).collect()
}

struct Computing {
    inner: Arc<dyn Source>,
    /// All columns.
    schema: SchemaRef,
    columns: Vec<ComputedColumn>,
    /// Those of them that are read, ascending: the columns of `inner`.
    read: Vec<usize>,
    /// What they are called by in expressions.
    qualifier: String,
    /// By whose clocks is computed.
    zone: Zone,
}

impl Computing {
    /// What makes the wanted columns, and the columns of the inner source that it needs.
    fn compute(&self, wanted: &[usize]) -> Result<(Compute, Vec<usize>)> {
        let computed: Vec<&ComputedColumn> =
            self.columns.iter().filter(|c| wanted.contains(&c.column)).collect();
        let refs = computed.iter().flat_map(|c| c.expr.column_refs());
        let refs = refs.map(|c| self.schema.index_of(c.name()));
        let mut needed: Vec<usize> = refs.collect::<Result<_, _>>()?;
        needed.extend(wanted.iter().filter(|at| self.read.binary_search(at).is_ok()));
        needed.sort_unstable();
        needed.dedup();
        let fields = needed.iter().map(|at| self.schema.field(*at).clone().with_nullable(true));
        let input = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let columns = DFSchema::try_from_qualified_schema(self.qualifier.as_str(), &input);
        let columns = columns.map_err(from_datafusion)?;
        let fields = wanted.iter().map(|at| self.schema.field(*at).clone().with_nullable(true));
        let output = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let expr = |at: &usize, filled: bool| match computed.iter().find(|c| c.column == *at) {
            Some(c) if filled => Ok(c.expr.clone()),
            Some(_) => {
                let null = ScalarValue::try_from(self.schema.field(*at).data_type());
                Ok(Expr::Literal(null.map_err(from_datafusion)?, None))
            }
            None => {
                let place = needed.binary_search(at);
                let place = place.map_err(|_| Error::internal("a wanted column is not read"))?;
                Ok(Expr::from(columns.qualified_field(place)))
            }
        };
        let exprs = |filled| wanted.iter().map(|at| expr(at, filled)).collect::<Result<Vec<_>>>();
        let one = |c: &&ComputedColumn| {
            let field = self.schema.field(c.column);
            let output = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
            let projection = Projection::new(std::slice::from_ref(&c.expr), &columns, output)?;
            Ok((field.name().clone(), projection))
        };
        let style = TextStyle::of_zone(self.zone);
        let compute = style.under(|| -> Result<Compute> {
            Ok(Compute {
                style,
                all: Projection::new(&exprs(true)?, &columns, output.clone())?,
                bare: Projection::new(&exprs(false)?, &columns, output.clone())?,
                single: computed.iter().map(one).collect::<Result<_>>()?,
                required: wanted
                    .iter()
                    .enumerate()
                    .filter(|(_, at)| {
                        self.is_computed(**at) && !self.schema.field(**at).is_nullable()
                    })
                    .map(|(place, _)| place)
                    .collect(),
                input,
            })
        })?;
        let place = |at: &usize| self.read.binary_search(at).unwrap_or_default();
        Ok((compute, needed.iter().map(place).collect()))
    }

    fn is_computed(&self, column: usize) -> bool {
        self.columns.iter().any(|c| c.column == column)
    }
}

impl Source for Computing {
    fn start(&self) -> Result<Positions> {
        self.inner.start()
    }

    fn reader(
        &self,
        from: &Positions,
        until: Option<&Positions>,
        columns: &[usize],
    ) -> Result<Box<dyn SplitReader>> {
        let (compute, needed) = self.compute(columns)?;
        let inner = self.inner.reader(from, until, &needed)?;
        Ok(Box::new(Reader { inner, compute, at: from.clone() }))
    }

    fn edge(&self, edge: Edge) -> Result<Option<Positions>> {
        self.inner.edge(edge)
    }

    fn go_on(&self, from: &Positions, identity: Option<&str>) -> Result<Continuation> {
        self.inner.go_on(from, identity)
    }

    fn is_bounded(&self) -> bool {
        self.inner.is_bounded()
    }

    /// What could not be computed of a row can't be computed again.
    fn decode_again(&self, split: SplitId, messages: &[Rejected]) -> Result<Again> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let (compute, _) = self.compute(&all)?;
        let read = |m: &Rejected| {
            !m.column.as_ref().is_some_and(|c| compute.single.iter().any(|(name, _)| name == c))
        };
        let places: Vec<usize> =
            messages.iter().enumerate().filter(|(_, m)| read(m)).map(|(at, _)| at).collect();
        let tried: Vec<Rejected> = places.iter().map(|at| messages[*at].clone()).collect();
        let again = self.inner.decode_again(split, &tried)?;
        let mut rejected: BTreeMap<usize, Rejected> = (0..messages.len())
            .filter(|at| places.binary_search(at).is_err())
            .map(|at| (at, messages[at].clone()))
            .collect();
        rejected.extend(again.rejected.into_iter().map(|(at, m)| (places[at], m)));
        let decoded: Vec<usize> =
            (0..messages.len()).filter(|at| !rejected.contains_key(at)).collect();
        let (rows, failed) = compute.rows(&again.rows)?;
        for Failed { row, column, reason } in failed {
            let at = decoded[row];
            let column = Some(column);
            rejected.insert(at, Rejected { column, reason, ..messages[at].clone() });
        }
        Ok(Again { rows, rejected: rejected.into_iter().collect() })
    }
}

/// Makes the wanted columns of those that are read.
struct Compute {
    style: TextStyle,
    /// All of them, and with NULL in the place of those that are computed.
    all: Projection,
    bare: Projection,
    /// Each that is computed by its name.
    single: Vec<(String, Projection)>,
    /// The places of those that are computed and NOT NULL.
    required: Vec<usize>,
    /// What is read.
    input: SchemaRef,
}

/// A row of which a column can't be computed.
struct Failed {
    row: usize,
    column: String,
    reason: String,
}

impl Compute {
    /// The rows that can be computed, in their order, and the others.
    fn rows(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<Failed>)> {
        let rows = RecordBatch::try_new(self.input.clone(), rows.columns().to_vec())?;
        self.style.under(|| {
            let (made, mut failed) = self.project(&rows, 0)?;
            let nulls = |place: &usize| made.column(*place).null_count() > 0;
            if !self.required.iter().any(nulls) {
                return Ok((made, failed));
            }
            let mut left = (0..rows.num_rows()).collect::<Vec<_>>();
            left.retain(|row| failed.iter().all(|f| f.row != *row));
            let null = |at: usize| self.required.iter().find(|p| made.column(**p).is_null(at));
            let kept: BooleanArray = (0..left.len()).map(|at| Some(null(at).is_none())).collect();
            for (at, row) in left.iter().enumerate() {
                let Some(place) = null(at) else { continue };
                let column = made.schema_ref().field(*place).name().clone();
                let reason = format!("null value in column \"{column}\"");
                failed.push(Failed { row: *row, column, reason });
            }
            failed.sort_by_key(|f| f.row);
            Ok((arrow::compute::filter_record_batch(&made, &kept)?, failed))
        })
    }

    fn project(&self, rows: &RecordBatch, first: usize) -> Result<(RecordBatch, Vec<Failed>)> {
        let mut errors = Vec::new();
        let delta = DeltaBatch::inserts(rows.clone());
        let Some(made) = self.all.project(&delta, &mut errors)? else {
            // Together they would be too large.
            let half = rows.num_rows() / 2;
            let (one, mut failed) = self.project(&rows.slice(0, half), first)?;
            let rest = rows.slice(half, rows.num_rows() - half);
            let (two, more) = self.project(&rest, first + half)?;
            failed.extend(more);
            return Ok((concat_batches(self.all.schema(), [&one, &two])?, failed));
        };
        let failed = errors.into_iter().map(|e| {
            let column = self.failing(&rows.slice(e.row, 1))?;
            Ok(Failed { row: first + e.row, column, reason: e.reason })
        });
        Ok((made.rows().clone(), failed.collect::<Result<_>>()?))
    }

    /// The column that can't be computed of a row.
    fn failing(&self, row: &RecordBatch) -> Result<String> {
        for (name, projection) in &self.single {
            let mut errors = Vec::new();
            projection.project(&DeltaBatch::inserts(row.clone()), &mut errors)?;
            if !errors.is_empty() {
                return Ok(name.clone());
            }
        }
        Err(Error::internal("a row fails, and none of its columns"))
    }

    /// The same where some rows delete their key: of those nothing is computed.
    fn changes(
        &self,
        rows: &RecordBatch,
        deletes: &BooleanArray,
    ) -> Result<(RecordBatch, BooleanArray, Vec<Failed>)> {
        let deletion = |row: &u32| deletes.value(*row as usize);
        let (gone, new): (Vec<u32>, Vec<u32>) =
            (0..rows.num_rows() as u32).partition(|row| deletion(row));
        let (made, mut failed) =
            self.rows(&take_record_batch(rows, &UInt32Array::from(new.clone()))?)?;
        for f in &mut failed {
            f.row = new[f.row] as usize;
        }
        let left = new.iter().filter(|row| failed.iter().all(|f| f.row != **row as usize));
        let deleted = take_record_batch(rows, &UInt32Array::from(gone.clone()))?;
        let deleted = RecordBatch::try_new(self.input.clone(), deleted.columns().to_vec())?;
        let bare = self.bare.project(&DeltaBatch::inserts(deleted), &mut Vec::new())?;
        let bare = bare.ok_or_else(|| Error::internal("deletions are too large"))?;
        let both = concat_batches(self.all.schema(), [&made, bare.rows()])?;
        let mut order: Vec<(u32, bool)> = left.map(|row| (*row, false)).collect();
        order.extend(gone.iter().map(|row| (*row, true)));
        let mut places: Vec<u32> = (0..order.len() as u32).collect();
        places.sort_by_key(|place| order[*place as usize].0);
        let is_gone = places.iter().map(|place| Some(order[*place as usize].1)).collect();
        Ok((take_record_batch(&both, &UInt32Array::from(places))?, is_gone, failed))
    }

    /// What was read of a row, as JSON.
    fn payload(&self, rows: &RecordBatch, row: usize) -> Result<Option<Vec<u8>>> {
        let mut encoder = FormatSpec::plain_json().encoder(self.input.clone())?;
        let row = rows.slice(row, 1);
        let row = RecordBatch::try_new(self.input.clone(), row.columns().to_vec())?;
        let mut out = Vec::new();
        encoder.encode(&row, &mut out)?;
        Ok(out.pop())
    }
}

struct Reader {
    inner: Box<dyn SplitReader>,
    compute: Compute,
    /// The next position by split.
    at: Positions,
}

impl Reader {
    fn with_computed(&mut self, batch: SourceBatch) -> Result<SourceBatch> {
        let first = self.at.insert(batch.split, batch.next);
        let (rows, deletes, failed) = match &batch.deletes {
            None => {
                let (rows, failed) = self.compute.rows(&batch.rows)?;
                (rows, None, failed)
            }
            Some(deletes) => {
                let (rows, deletes, failed) = self.compute.changes(&batch.rows, deletes)?;
                (rows, Some(deletes), failed)
            }
        };
        let mut rejected = batch.rejected;
        if !failed.is_empty() {
            let places = places(first, batch.next, &rejected, batch.rows.num_rows());
            for Failed { row, column, reason } in failed {
                let payload = self.compute.payload(&batch.rows, row)?;
                let (position, column) = (places(row), Some(column));
                rejected.push(Rejected { position, payload, key: None, column, reason });
            }
            rejected.sort_by_key(|r| r.position);
        }
        Ok(SourceBatch { rows, deletes, rejected, ..batch })
    }
}

/// Where the messages of rows are: exactly, where each position has a message and each message a
/// row; else the last position that was read with them.
fn places(
    first: Option<Position>,
    next: Position,
    rejected: &[Rejected],
    rows: usize,
) -> impl Fn(usize) -> Position + use<> {
    let taken: Vec<Position> = rejected.iter().map(|r| r.position).collect();
    let span = first.map(|first| next.saturating_sub(first));
    let exact = span.and_then(|s| usize::try_from(s).ok()) == Some(rows + taken.len());
    let free: Vec<Position> = match first.filter(|_| exact) {
        Some(first) => (first..next).filter(|at| !taken.contains(at)).collect(),
        None => Vec::new(),
    };
    move |row| free.get(row).copied().unwrap_or(next - 1)
}

impl SplitReader for Reader {
    fn read(&mut self, max_rows: usize, timeout: Duration) -> Result<Read> {
        Ok(match self.inner.read(max_rows, timeout)? {
            Read::Batch(batch) => Read::Batch(self.with_computed(batch)?),
            other => other,
        })
    }

    fn ends(&mut self) -> Option<Positions> {
        self.inner.ends()
    }

    fn tell(&mut self, next: &Positions) {
        self.inner.tell(next);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type};
    use datafusion::logical_expr::{cast, col, lit, when};

    use super::*;

    /// It is never read.
    struct Unread;

    impl Source for Unread {
        fn start(&self) -> Result<Positions> {
            Ok(Positions::new())
        }

        fn reader(
            &self,
            _: &Positions,
            _: Option<&Positions>,
            _: &[usize],
        ) -> Result<Box<dyn SplitReader>> {
            Err(Error::internal("it is not read"))
        }

        fn is_bounded(&self) -> bool {
            true
        }
    }

    #[test]
    fn what_cant_be_computed_is_rejected_and_deletions_need_nothing() -> Result<()> {
        let field = |name, nullable| Field::new(name, DataType::Int64, nullable);
        let schema = Arc::new(Schema::new(vec![field("a", true), field("b", false)]));
        // Fails for 13, and is NULL for 7.
        let word = cast(lit("thirteen"), DataType::Int64);
        let expr = when(col("t.a").eq(lit(13_i64)), word)
            .when(col("t.a").not_eq(lit(7_i64)), col("t.a") + lit(1_i64))
            .end()
            .map_err(from_datafusion)?;
        let columns = vec![ComputedColumn { column: 1, expr }];
        let read = read_columns(&schema, &columns);
        let (inner, zone) = (Arc::new(Unread), Zone::UTC);
        let source = Computing { inner, schema, columns, read, qualifier: "t".into(), zone };
        let (compute, needed) = source.compute(&[0, 1])?;
        assert_eq!(needed, [0]);
        let input = vec![Arc::new(Int64Array::from(vec![1, 13, 7, 13, 2])) as _];
        let rows = RecordBatch::try_new(compute.input.clone(), input)?;

        let deletes = BooleanArray::from(vec![false, false, false, true, false]);
        let (made, gone, failed) = compute.changes(&rows, &deletes)?;
        let values = |at: usize| made.column(at).as_primitive::<Int64Type>().iter().collect();
        let (a, b): (Vec<_>, Vec<_>) = (values(0), values(1));
        assert_eq!(a, [Some(1), Some(13), Some(2)]);
        assert_eq!(b, [Some(2), None, Some(3)]);
        assert_eq!(gone, BooleanArray::from(vec![false, true, false]));
        let failed: Vec<(usize, &str)> =
            failed.iter().map(|f| (f.row, f.column.as_str())).collect();
        assert_eq!(failed, [(1, "b"), (2, "b")]);
        Ok(())
    }

    #[test]
    fn places_are_exact_where_each_position_has_a_message() {
        let (payload, key, column) = (None, None, None);
        let other = Rejected { position: 11, payload, key, column, reason: String::new() };
        let place = places(Some(10), 13, std::slice::from_ref(&other), 2);
        assert_eq!((place(0), place(1)), (10, 12));
        // A transaction has left a gap.
        let place = places(Some(10), 14, &[other], 2);
        assert_eq!((place(0), place(1)), (13, 13));
    }
}
