//! What DataFusion's SQL planner asks for: relations of the catalog, functions, types and the
//! planner of window table functions. Synchronous, over one catalog snapshot.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DfResult, TableReference, plan_err};
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use sqlparser::ast;

use super::binder::{Purpose, Settings, finish_part, plan_part, plan_view};
use super::computed::with_arrivals;
use super::fields::Records;
use super::functions::FUNCTIONS;
use super::missing::missing_function;
use super::names::MARK;
use super::parts::{Mentions, Part, PartSource, share, views_of};
use super::pass::apart;
use super::types::cast_type;
use crate::cancel::Cancel;
use crate::catalog::{Catalog, Relation, RelationId, RelationKind, qualified, system};
use crate::delta::style::TextStyle;
use crate::error::{Error, Result, sqlstate};
use crate::expr::{WalkPlan, operand_udf, to_datafusion};

/// A scan of a relation that is named but not yet bound to rows: `plan` reads the relation from it,
/// `batch` puts a provider in its place.
pub struct RelationSource {
    /// The relation.
    pub relation: Arc<Relation>,
    schema: SchemaRef,
}

impl RelationSource {
    /// A source of a relation. Its columns are all nullable: the optimiser must not draw
    /// conclusions from a constraint that an input might break.
    pub fn new(relation: Arc<Relation>) -> Self {
        let schema = nullable(&relation.schema);
        Self { relation, schema }
    }
}

/// The same columns, all nullable.
pub(crate) fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// The name of a relation that a plan scans.
pub fn relation_name(plan: &LogicalPlan, id: RelationId) -> Option<String> {
    let mut name = None;
    let looked = plan.each_node(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<RelationSource>()
            && source.relation.id == id
        {
            name = Some(source.relation.name.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(looked.is_ok(), "looking at a plan does not fail");
    name
}

impl fmt::Debug for RelationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelationSource({})", self.relation.name)
    }
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// A plain view: the planner puts its plan in its place.
struct ViewSource {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// The options that planning and optimising share.
pub(crate) fn config() -> &'static ConfigOptions {
    &FUNCTIONS.options
}

/// A relation that a statement names, or a plain view does that the statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Read {
    /// The view, whose owner has to be allowed to read it; else whoever runs the statement.
    pub through: Option<RelationId>,
    /// What is read.
    pub relation: RelationId,
}

/// All that somebody has to be allowed to read.
pub type Reads = Arc<BTreeSet<Read>>;

/// One statement being bound.
pub(crate) struct Context<'a> {
    catalog: &'a Catalog,
    purpose: Purpose,
    settings: &'a Settings,
    /// A definition may name sources, which a query run at once can't read.
    defines: bool,
    /// Views that are being expanded, for a clear error instead of endless recursion.
    expanding: Vec<RelationId>,
    depends_on: RefCell<BTreeSet<RelationId>>,
    /// What somebody has to be allowed to read.
    reads: Rc<RefCell<BTreeSet<Read>>>,
    /// What plans the items of FROM, when it is more than what plans them everywhere.
    planners: Option<Vec<Arc<dyn RelationPlanner>>>,
    /// How often the relations of the statement are named; known once its query has been looked at.
    mentions: RefCell<Option<Rc<Mentions>>>,
    /// Queries that are planned once and read by name.
    parts: Rc<RefCell<Vec<Arc<Part>>>>,
    /// Plain views that have been planned.
    views: Rc<RefCell<HashMap<RelationId, Arc<dyn TableSource>>>>,
    /// The columns that have fields, of the relations that were looked up.
    records: Arc<Records>,
    /// What plans expressions.
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(catalog: &'a Catalog, purpose: Purpose, settings: &'a Settings) -> Self {
        let records = Arc::new(Records::default());
        Self {
            expr_planners: records.planners(),
            records,
            catalog,
            purpose,
            settings,
            defines: purpose == Purpose::View,
            expanding: Vec::new(),
            depends_on: RefCell::default(),
            reads: Rc::default(),
            planners: None,
            mentions: RefCell::default(),
            parts: Rc::default(),
            views: Rc::default(),
        }
    }

    /// The context of CREATE VIEW: what is bound is kept, not run.
    pub(crate) fn for_definition(
        catalog: &'a Catalog,
        purpose: Purpose,
        settings: &'a Settings,
    ) -> Self {
        Self { defines: true, ..Self::new(catalog, purpose, settings) }
    }

    /// The same context with one more kind of relation.
    pub(crate) fn with_planner(&self, planner: Arc<dyn RelationPlanner>) -> Self {
        let mut planners =
            self.planners.clone().unwrap_or_else(|| FUNCTIONS.relation_planners.clone());
        planners.insert(0, planner);
        Self {
            catalog: self.catalog,
            purpose: self.purpose,
            settings: self.settings,
            defines: self.defines,
            expanding: self.expanding.clone(),
            depends_on: self.depends_on.clone(),
            reads: Rc::clone(&self.reads),
            planners: Some(planners),
            mentions: RefCell::default(),
            parts: Rc::clone(&self.parts),
            views: Rc::default(),
            records: Arc::clone(&self.records),
            expr_planners: self.expr_planners.clone(),
        }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        self.catalog
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.settings
    }

    /// The columns with fields that are known.
    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// The token of the statement that is bound.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.settings.cancel
    }

    /// The relations that were looked up, those behind views included.
    pub(crate) fn depends_on(&self) -> Vec<RelationId> {
        self.depends_on.borrow().iter().copied().collect()
    }

    /// What somebody has to be allowed to read.
    pub(crate) fn reads(&self) -> Reads {
        Arc::new(self.reads.borrow().clone())
    }

    fn system_source(&self, schema: Option<&str>, name: &str) -> Result<Arc<dyn TableSource>> {
        let known = system::find(schema, name).filter(|_| !self.defines);
        let known = known.ok_or_else(|| {
            Error::unsupported(format!("a view of system relation \"{name}\" is not supported"))
                .with_detail("It would not change with the catalog.")
        })?;
        Ok(Arc::new(RelationSource::new(Arc::clone(&known.relation))))
    }

    fn source(&self, name: &str) -> Result<Arc<dyn TableSource>> {
        let relation = self.catalog.get(name)?;
        self.depends_on.borrow_mut().insert(relation.id);
        let through = self.expanding.last().copied();
        self.reads.borrow_mut().insert(Read { through, relation: relation.id });
        match relation.kind {
            RelationKind::Sink => Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is a sink and can not be read"),
            )
            .with_hint("Read the relation that it delivers.")),
            RelationKind::Index { .. } => Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("cannot open relation \"{name}\""),
            )
            .with_detail("This operation is not supported for indexes.")),
            RelationKind::Sequence if self.defines => {
                Err(Error::unsupported("a view of a sequence is not supported"))
            }
            RelationKind::View => self.expand(relation),
            RelationKind::Source if !self.defines => Err(Error::user(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("source \"{name}\" stores no rows and can not be read directly"),
            )
            .with_hint(format!(
                "CREATE MATERIALIZED VIEW v AS SELECT * FROM {name}; or make it with CREATE TABLE."
            ))),
            _ => {
                self.records.add(relation);
                let source = Arc::new(RelationSource::new(Arc::clone(relation)));
                Ok(match with_arrivals(name, relation, source.clone())? {
                    None => source,
                    Some(plan) => Arc::new(ViewSource { schema: source.schema(), plan }),
                })
            }
        }
    }

    fn expand(&self, view: &Arc<Relation>) -> Result<Arc<dyn TableSource>> {
        self.cancel().check()?;
        if let Some(known) = self.views.borrow().get(&view.id) {
            return Ok(Arc::clone(known));
        }
        if self.expanding.contains(&view.id) {
            return Err(Error::internal(format!("view \"{}\" reads itself", view.name)));
        }
        let mut expanding = self.expanding.clone();
        expanding.push(view.id);
        let inner = Context {
            catalog: self.catalog,
            purpose: self.purpose,
            settings: self.settings,
            defines: self.defines,
            expanding,
            depends_on: RefCell::default(),
            reads: Rc::clone(&self.reads),
            planners: self.planners.clone(),
            mentions: self.mentions.clone(),
            parts: Rc::clone(&self.parts),
            views: Rc::clone(&self.views),
            records: Arc::clone(&self.records),
            expr_planners: self.expr_planners.clone(),
        };
        let style = TextStyle::current();
        let own = view.zone.filter(|zone| *zone != style.zone);
        let style = TextStyle { zone: own.unwrap_or(style.zone), ..style };
        let plan = style.under(|| apart(&view.name, || plan_view(view, &inner)))?;
        let shared = self.mentions().is_some_and(|mentions| mentions.shares(&view.name));
        let source: Arc<dyn TableSource> = match shared || own.is_some() {
            true => {
                let finish = || apart(&view.name, || finish_part(plan, &inner));
                inner.part(style.under(finish)?, &view.name)
            }
            false => {
                let schema = Arc::new(plan.schema().as_arrow().clone());
                Arc::new(ViewSource { schema, plan })
            }
        };
        self.depends_on.borrow_mut().extend(inner.depends_on());
        self.views.borrow_mut().insert(view.id, Arc::clone(&source));
        Ok(source)
    }

    /// How often the relations of the statement are named.
    pub(crate) fn mentions(&self) -> Option<Rc<Mentions>> {
        self.mentions.borrow().clone()
    }

    /// Takes queries out of a query that are planned once and read by name.
    pub(crate) fn share_parts(&self, query: &mut ast::Query) -> Result<()> {
        let known = self.mentions();
        let mentions = match known {
            Some(known) => known,
            None => {
                let counted = Rc::new(views_of(query, self.catalog)?);
                *self.mentions.borrow_mut() = Some(Rc::clone(&counted));
                counted
            }
        };
        share(query, &mentions, &mut |query, name| {
            let source = self.part(apart(name, || plan_part(&query, self))?, name);
            Ok(source.part.name.clone())
        })
    }

    /// Makes a part of a plan.
    fn part(&self, plan: LogicalPlan, name: &str) -> Arc<PartSource> {
        let schema = nullable(plan.schema().as_arrow());
        let mut parts = self.parts.borrow_mut();
        let id = parts.len();
        let name = format!("{name}{MARK}{id}");
        let part = Arc::new(Part { id, name, plan, schema });
        parts.push(Arc::clone(&part));
        Arc::new(PartSource { part })
    }

    /// The part of a name.
    fn find_part(&self, name: &str) -> Option<Arc<dyn TableSource>> {
        let (_, id) = name.split_once(MARK)?;
        let part = self.parts.borrow().get(id.parse::<usize>().ok()?).cloned()?;
        Some(Arc::new(PartSource { part }))
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        if let Some(part) = self.find_part(name.table()) {
            return Ok(part);
        }
        let known = match name.schema() {
            None => name.table().to_owned(),
            Some(schema) => qualified(schema, name.table()),
        };
        match name.schema() {
            _ if self.catalog.find(&known).is_some() => self.source(&known),
            schema if system::find(schema, name.table()).is_some() => {
                self.system_source(schema, name.table())
            }
            _ => self.source(&known),
        }
        .map_err(to_datafusion)
    }

    fn get_table_function_source(
        &self,
        name: &str,
        _args: Vec<Expr>,
    ) -> DfResult<Arc<dyn TableSource>> {
        Err(to_datafusion(Error::user(
            sqlstate::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        )))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.planners.as_deref().unwrap_or(&FUNCTIONS.relation_planners)
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let known = FUNCTIONS.scalar.get(name).cloned().or_else(|| operand_udf(name));
        let known =
            known.or_else(|| super::system::function(name, self.catalog, &self.settings.session));
        // The planner has this one itself.
        let other = name == "unnest";
        let other =
            other || FUNCTIONS.aggregate.contains_key(name) || FUNCTIONS.window.contains_key(name);
        known.or_else(|| (!other).then(|| missing_function(name)))
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        FUNCTIONS.higher_order.get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        FUNCTIONS.aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        FUNCTIONS.window.get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn create_cte_work_table(&self, _: &str, _: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        plan_err!("WITH RECURSIVE is not supported yet")
    }

    fn options(&self) -> &ConfigOptions {
        &FUNCTIONS.options
    }

    fn udf_names(&self) -> Vec<String> {
        FUNCTIONS.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        FUNCTIONS.higher_order.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        FUNCTIONS.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        FUNCTIONS.window.keys().cloned().collect()
    }
}

/// Type names in casts.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql: &ast::DataType) -> DfResult<Option<FieldRef>> {
        let data_type = cast_type(sql).map_err(to_datafusion)?;
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
