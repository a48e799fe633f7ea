//! Statements with parameters: bound once, then executed with values.
//!
//! Everything that does not depend on the values happens in [`prepare`]; [`Prepared::bind`] puts
//! values and the current time in and optimises.

use std::sync::{Arc, LazyLock, OnceLock};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use sqlparser::ast;

use super::binder::{Bound, Purpose, Settings, finish, output_fields, plan_query};
use super::context::{Context, Reads};
use super::dml::{
    BoundConflict, BoundDelete, BoundInsert, BoundMerge, BoundUpdate, Cell, ChangeQuery, Conflict,
    Insert, InsertRows, MergeOf, RowField, Rows, delete_query, evaluate_rows, missing,
    parameter_index, placeholders, prepare_insert, prepare_merge, replace, returning, update_query,
};
use super::errors::plan_error;
use super::lookup::Lookup;
use super::optimize::analyze;
use super::parts::each_node;
use super::pass::{Scope, Stage, Target, over_plan};
use super::statement::{self, Statement};
use super::system::is_of_session;
use crate::catalog::{Catalog, Relation, RelationId};
use crate::delta::style::TextStyle;
use crate::error::{Error, Result};
use crate::expr::{Walk, WalkPlan, cast_styled, from_datafusion, is_now};

/// A statement that values can be put into. It is of the catalog that it was bound with: prepare it
/// again when that has changed.
#[derive(Debug, Clone)]
pub struct Prepared {
    parameters: Vec<DataType>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Query(Box<Planned>),
    Insert(Box<Insert>),
    Update(Change),
    Delete(Change),
    Merge(Box<MergeOf<Planned>>),
}

/// An UPDATE or DELETE.
#[derive(Debug, Clone)]
struct Change {
    relation: Arc<Relation>,
    query: Arc<Planned>,
    joined: bool,
    returning: Option<Planned>,
}

/// An analysed plan.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    plan: LogicalPlan,
    fields: SchemaRef,
    depends_on: Vec<RelationId>,
    reads: Reads,
    nature: Nature,
    /// The optimised plan, where it is the same for all executions.
    optimised: Arc<OnceLock<LogicalPlan>>,
    lookup: Option<Arc<Lookup>>,
}

/// What a plan has in it.
#[derive(Debug, Clone, Copy, Default)]
struct Nature {
    /// What is another value in another statement.
    stable: bool,
    /// What belongs to the session that has bound it.
    session: bool,
    /// Nodes and expressions, those of its parts and subqueries included.
    size: usize,
}

/// Memory of a node of a plan or of an expression, about.
const NODE_BYTES: usize = 512;

/// The rows of an UPDATE or DELETE, still to be planned: not where they are found by key.
#[derive(Debug, Clone)]
pub struct Reading {
    query: Arc<Planned>,
    values: Vec<ScalarValue>,
}

impl Reading {
    /// The read by key that it is, where it is one, with the values of its parameters.
    pub fn lookup(&self) -> Option<(&Lookup, &[ScalarValue])> {
        Some((self.query.lookup.as_deref()?, &self.values))
    }

    /// What somebody has to be allowed to read.
    pub fn reads(&self) -> &Reads {
        &self.query.reads
    }

    /// The plan.
    pub fn bind(&self, settings: &Settings) -> Result<Bound> {
        settings.style.under(|| self.query.bind(&self.values, settings))
    }
}

/// A statement with its values in it.
#[derive(Debug, Clone)]
pub enum BoundStatement {
    /// A query.
    Query(Bound),
    /// INSERT.
    Insert(Box<BoundInsert>),
    /// UPDATE.
    Update(BoundUpdate),
    /// DELETE.
    Delete(BoundDelete),
    /// MERGE.
    Merge(Box<BoundMerge>),
}

/// Binds a query or DML. `declared` are the types that the client gave to `$1`, `$2`, ..; the
/// others are inferred, and text where nothing tells.
pub fn prepare(
    statement: &Statement,
    declared: &[Option<DataType>],
    catalog: &Catalog,
    settings: &Settings,
) -> Result<Prepared> {
    let statement = match statement {
        Statement::Query(query) => Preparable::Query(query),
        Statement::Insert(insert) => Preparable::Insert(insert),
        Statement::Delete(delete) => Preparable::Delete(delete),
        Statement::Update(update) => Preparable::Update(update),
        Statement::Merge(merge) => Preparable::Merge(merge),
        _ => return Err(Error::unsupported("this statement can not have parameters")),
    };
    settings.style.under(|| prepare_statement(statement, declared, catalog, settings))
}

/// A statement that is bound to rows.
pub(super) enum Preparable<'a> {
    Query(&'a ast::Query),
    Insert(&'a statement::Insert),
    Delete(&'a statement::Delete),
    Update(&'a statement::Update),
    Merge(&'a statement::Merge),
}

/// The same for a part of the syntax tree.
pub(super) fn prepare_statement(
    statement: Preparable<'_>,
    declared: &[Option<DataType>],
    catalog: &Catalog,
    settings: &Settings,
) -> Result<Prepared> {
    let context = Context::new(catalog, Purpose::AdHoc, settings);
    let mut parameters = declared.to_vec();
    let kind = match statement {
        Preparable::Query(query) => {
            let plan = analyze(plan_query(query, &Scope::of(&context, declared))?)?;
            Kind::Query(Box::new(Planned::new(plan, &context).with_lookup()))
        }
        Preparable::Insert(insert) => {
            let insert = prepare_insert(insert, &mut parameters, catalog, &context)?;
            Kind::Insert(Box::new(insert))
        }
        Preparable::Merge(merge) => {
            Kind::Merge(Box::new(prepare_merge(merge, declared, catalog, &context)?))
        }
        Preparable::Delete(delete) => {
            let change = delete_query(delete, catalog, &context)?;
            let returning = delete.delete.returning.as_deref();
            Kind::Delete(Change::prepare(change, returning, None, &context, declared)?)
        }
        Preparable::Update(update) => {
            let change = update_query(update, catalog, &context)?;
            let width = change.relation.schema.fields().len();
            let first = width + usize::from(change.joined);
            let returning = update.update.returning.as_deref();
            Kind::Update(Change::prepare(change, returning, Some(first), &context, declared)?)
        }
    };
    kind.collect_parameters(&mut parameters)?;
    let parameters = parameters.into_iter().map(|t| t.unwrap_or(DataType::Utf8)).collect();
    Ok(Prepared { parameters, kind })
}

impl Change {
    /// Plans a change; `first` is the first of its new columns, where it has any.
    fn prepare(
        change: ChangeQuery,
        returned: Option<&[ast::SelectItem]>,
        first: Option<usize>,
        context: &Context<'_>,
        declared: &[Option<DataType>],
    ) -> Result<Self> {
        let inner = change.context(context)?;
        let relation = &change.relation;
        let columns: Vec<usize> = (0..relation.schema.fields().len()).collect();
        let target = Target { relation, first, columns: &columns, fills: false };
        let scope = Scope::of(&inner, declared).to(target);
        let plan = over_plan(Stage::Assignment, plan_query(&change.query, &scope)?, &scope)?;
        let query = Arc::new(Planned::new(analyze(plan)?, &inner).with_lookup());
        let (width, mut seen) = (relation.schema.fields().len(), change.seen);
        query.type_last(&mut seen[width..]);
        let returning = match returned {
            None => None,
            Some(items) => {
                let plan = returning(items, &seen, context, declared)?;
                Some(Planned::new(plan, context))
            }
        };
        let (relation, joined) = (change.relation, change.joined);
        Ok(Self { relation, query, joined, returning })
    }
}

impl Change {
    fn rows(&self, values: Vec<ScalarValue>) -> Reading {
        Reading { query: Arc::clone(&self.query), values }
    }
}

impl Planned {
    pub(super) fn new(plan: LogicalPlan, context: &Context<'_>) -> Self {
        Self {
            fields: output_fields(&plan),
            nature: Nature::of(&plan),
            plan,
            depends_on: context.depends_on(),
            reads: context.reads(),
            optimised: Arc::default(),
            lookup: None,
        }
    }

    fn with_lookup(self) -> Self {
        let lookup = Lookup::new(&self.plan, &self.fields).map(Arc::new);
        Self { lookup, ..self }
    }

    /// Gives columns the types of the last ones of the plan: what they had ahead of the passes
    /// that find types may be another.
    pub(super) fn type_last(&self, columns: &mut [RowField]) {
        let first = self.fields.fields().len().saturating_sub(columns.len());
        for ((_, column), found) in columns.iter_mut().zip(self.fields.fields().iter().skip(first))
        {
            *column = column.clone().with_data_type(found.data_type().clone());
        }
    }

    fn bind(&self, values: &[ScalarValue], settings: &Settings) -> Result<Bound> {
        let kept = values.is_empty() && settings.optimize && !self.nature.stable;
        let plan = match self.optimised.get().filter(|_| kept) {
            Some(plan) => plan.clone(),
            None => {
                let catalog = Catalog::default();
                let context = Context::new(&catalog, Purpose::AdHoc, settings);
                let scope = Scope { values, ..Scope::of(&context, &[]) };
                let plan = finish(self.plan.clone(), &scope)?.plan;
                if kept {
                    // Another execution may have been faster.
                    let _ = self.optimised.set(plan.clone());
                }
                plan
            }
        };
        let (fields, depends_on) = (Arc::clone(&self.fields), self.depends_on.clone());
        Ok(Bound { plan, fields, depends_on, reads: Arc::clone(&self.reads) })
    }
}

impl Nature {
    fn of(plan: &LogicalPlan) -> Self {
        let mut nature = Self::default();
        let looked = each_node(plan, &mut |node| {
            nature.size += 1;
            let looked = node.each_expr(|expr| {
                nature.add(expr);
                Ok(TreeNodeRecursion::Continue)
            });
            looked.map(drop).map_err(from_datafusion)
        });
        match looked {
            Ok(()) => nature,
            // What can't be looked at is kept for nobody.
            Err(_) => Self { stable: true, session: true, ..nature },
        }
    }

    fn add(&mut self, expr: &Expr) {
        // The visit itself can't fail.
        let _ = expr.apply(|e| {
            self.size += 1;
            if let Expr::ScalarFunction(f) = e {
                self.stable |= f.func.signature().volatility == Volatility::Stable || is_now(e);
                self.session |= is_of_session(&f.func);
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }
}

/// Puts values in the places of parameters.
pub(super) fn with_values(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan);
    }
    let replaced = plan.map_nodes_up(|node| {
        let names = NamePreserver::new(&node);
        node.map_exprs(|e| {
            let name = names.save(&e);
            Ok(replace(e, values)?.update_data(|e| name.restore(e)))
        })
    });
    replaced.map(|t| t.data).map_err(plan_error)
}

impl Kind {
    /// Adds the parameters of plans and cells to those whose types are known.
    fn collect_parameters(&self, types: &mut Vec<Option<DataType>>) -> Result<()> {
        let mut found = |id: &str, data_type: Option<&DataType>| -> Result<()> {
            let index = parameter_index(id)?;
            if types.len() <= index {
                types.resize(index + 1, None);
            }
            if let (slot @ None, Some(t)) = (&mut types[index], data_type) {
                *slot = Some(t.clone());
            }
            Ok(())
        };
        for cell in self.cells() {
            if let Cell::Expr(expr) = cell {
                for (id, t) in placeholders(expr)? {
                    found(&id, t.as_ref())?;
                }
            }
        }
        for planned in self.plans() {
            let parameters = planned.plan.get_parameter_types().map_err(plan_error)?;
            parameters.iter().try_for_each(|(id, t)| found(id, t.as_ref()))?;
        }
        Ok(())
    }

    /// The cells of an INSERT's VALUES.
    fn cells(&self) -> impl Iterator<Item = &Cell> {
        let rows = match self {
            Self::Insert(insert) => match &insert.rows {
                Rows::Values(rows) => rows.as_slice(),
                Rows::Query(_) | Rows::Literals(_) => &[],
            },
            _ => &[],
        };
        rows.iter().flatten()
    }

    fn plans(&self) -> Vec<&Planned> {
        match self {
            Self::Query(planned) => vec![planned.as_ref()],
            Self::Insert(insert) => {
                let mut plans: Vec<&Planned> = insert.returning.iter().collect();
                plans.extend(match &insert.rows {
                    Rows::Query(planned) => Some(planned.as_ref()),
                    Rows::Values(_) | Rows::Literals(_) => None,
                });
                plans.extend(match &insert.conflict {
                    Conflict::Update(planned) => Some(planned.as_ref()),
                    _ => None,
                });
                plans
            }
            Self::Update(c) | Self::Delete(c) => {
                std::iter::once(c.query.as_ref()).chain(&c.returning).collect()
            }
            Self::Merge(merge) => merge.queries().collect(),
        }
    }

    fn returning(&self) -> Option<&Planned> {
        match self {
            Self::Query(planned) => Some(planned.as_ref()),
            Self::Insert(insert) => insert.returning.as_ref(),
            Self::Update(c) | Self::Delete(c) => c.returning.as_ref(),
            Self::Merge(merge) => merge.returning.as_ref(),
        }
    }
}

impl Prepared {
    /// The types of `$1`, `$2`, ..
    pub fn parameters(&self) -> &[DataType] {
        &self.parameters
    }

    /// The columns of the result; `None` for statements that return no rows.
    pub fn fields(&self) -> Option<&SchemaRef> {
        self.kind.returning().map(|planned| &planned.fields)
    }

    /// The read by key that a query is, where it is one.
    pub fn lookup(&self) -> Option<&Lookup> {
        match &self.kind {
            Kind::Query(planned) => planned.lookup.as_deref(),
            _ => None,
        }
    }

    /// The relations that a query reads.
    pub fn depends_on(&self) -> &[RelationId] {
        match &self.kind {
            Kind::Query(planned) => &planned.depends_on,
            _ => &[],
        }
    }

    /// What somebody has to be allowed to read, of a query.
    pub fn reads(&self) -> &Reads {
        static NONE: LazyLock<Reads> = LazyLock::new(Reads::default);
        match &self.kind {
            Kind::Query(planned) => &planned.reads,
            _ => &NONE,
        }
    }

    /// Whether other sessions can execute it, too.
    pub fn is_shareable(&self) -> bool {
        let of_session = |e: &Expr| {
            let mut nature = Nature::default();
            nature.add(e);
            nature.session
        };
        self.kind.plans().iter().all(|planned| !planned.nature.session)
            && !self.kind.cells().any(|cell| matches!(cell, Cell::Expr(e) if of_session(e)))
    }

    /// The memory that it takes, about.
    pub fn bytes(&self) -> usize {
        let nodes: usize = self.kind.plans().iter().map(|planned| planned.nature.size).sum();
        let literals = match &self.kind {
            Kind::Insert(insert) => match &insert.rows {
                Rows::Literals(rows) => rows.get_array_memory_size(),
                _ => 0,
            },
            _ => 0,
        };
        (nodes + self.kind.cells().count()).saturating_mul(NODE_BYTES).saturating_add(literals)
    }

    /// Values in the types of the parameters.
    pub fn fit(&self, values: &[ScalarValue]) -> Result<Vec<ScalarValue>> {
        if values.len() < self.parameters.len() {
            return Err(missing(values.len()));
        }
        self.parameters.iter().zip(values).map(|(to, v)| fit(v, to)).collect()
    }

    /// Puts values of the parameters' types in.
    pub fn bind(&self, values: &[ScalarValue], settings: &Settings) -> Result<BoundStatement> {
        settings.style.under(|| self.bind_styled(values, settings))
    }

    fn bind_styled(&self, values: &[ScalarValue], settings: &Settings) -> Result<BoundStatement> {
        let values = self.fit(values)?;
        Ok(match &self.kind {
            Kind::Query(planned) => BoundStatement::Query(planned.bind(&values, settings)?),
            Kind::Insert(insert) => {
                BoundStatement::Insert(Box::new(insert.bind(&values, settings)?))
            }
            Kind::Merge(merge) => {
                BoundStatement::Merge(Box::new(merge.map(|q| q.bind(&values, settings))?))
            }
            Kind::Update(change) => BoundStatement::Update(BoundUpdate {
                relation: Arc::clone(&change.relation),
                returning: bind_optional(change.returning.as_ref(), &values, settings)?,
                rows: change.rows(values),
                joined: change.joined,
            }),
            Kind::Delete(change) => BoundStatement::Delete(BoundDelete {
                relation: Arc::clone(&change.relation),
                returning: bind_optional(change.returning.as_ref(), &values, settings)?,
                rows: change.rows(values),
                joined: change.joined,
            }),
        })
    }
}

fn bind_optional(
    planned: Option<&Planned>,
    values: &[ScalarValue],
    settings: &Settings,
) -> Result<Option<Bound>> {
    planned.map(|p| p.bind(values, settings)).transpose()
}

impl Insert {
    fn bind(&self, values: &[ScalarValue], settings: &Settings) -> Result<BoundInsert> {
        let relation = Arc::clone(&self.relation);
        let rows = match &self.rows {
            Rows::Values(rows) => {
                InsertRows::Values(evaluate_rows(&relation, rows, values, settings)?)
            }
            Rows::Literals(rows) => InsertRows::Values(rows.clone()),
            Rows::Query(query) => InsertRows::Query(query.bind(values, settings)?),
        };
        let conflict = match &self.conflict {
            Conflict::Refuse => BoundConflict::Refuse,
            Conflict::Ignore => BoundConflict::Ignore,
            Conflict::Overwrite => BoundConflict::Overwrite,
            Conflict::Update(planned) => {
                BoundConflict::Update(Box::new(planned.bind(values, settings)?))
            }
        };
        let returning = bind_optional(self.returning.as_ref(), values, settings)?;
        Ok(BoundInsert { relation, rows, conflict, returning })
    }
}

fn fit(value: &ScalarValue, to: &DataType) -> Result<ScalarValue> {
    if value.data_type() == *to {
        return Ok(value.clone());
    }
    let array = value.to_array_of_size(1).map_err(from_datafusion)?;
    let array = cast_styled(&array, to, TextStyle::current())?;
    ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)
}
