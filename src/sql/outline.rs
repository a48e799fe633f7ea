//! Deep expressions in pieces: what makes the time to plan an expression grow with its size alone.
//!
//! The planner types and names a node by walking everything below it, each time somebody asks, so
//! a chain of n operators costs n^3. Here every few levels of a deep expression become the call of
//! a function of their own, an *outline*: its body is that part of the expression, its arguments
//! are what the part reads (columns, aggregates, subqueries, ..). What stands above sees a call of
//! columns, whose type is computed once per list of argument types and kept.
//!
//! ```text
//! a + b + 1 + .. + 1 + c      becomes      o2(a, b, c)
//!                                          o2(x, y, z) = o1(x, y) + 1 + .. + z
//!                                          o1(x, y) = x + y + 1 + ..
//! ```
//!
//! A body is kept as it was planned. PostgreSQL's meaning and the coercion of types are put into it
//! when the types of its arguments are known, which change on the way from planning to execution,
//! and it is compiled when it is first evaluated. Nothing in a body depends on the time or on other
//! rows, so the optimiser loses no more than the view inside.
//!
//! Where the pieces are cut is a matter of the expression alone, bottom up: equal expressions in
//! one statement are cut alike. What GROUP BY names stays in one piece ([`mark`](super::heights)).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::expr::{Alias, Placeholder, ScalarFunction};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;

use super::checkpoint::checkpoint;
use super::heights::KEEP;
use super::semantics::rewrite_in;
use crate::expr::{Walk, compile, folding, to_datafusion};

/// An outline with more arguments is an argument itself of the one above, so that a long sum of
/// columns is no list of columns at every piece of it.
const ARGUMENTS_MAX: usize = 64;

/// Makes a call of an outline of an expression over a schema, where that can be.
pub(super) fn outline(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    // A parameter takes its type from what stands beside it, which must still see it.
    let expr = if has_open_parameter(&expr)? { rewrite_in(expr, schema)? } else { expr };
    if is_leaf(&expr) || has_open_parameter(&expr)? {
        return Ok(expr);
    }
    let mut reads = Reads::default();
    let body = expr.transform_down(|e| match e {
        Expr::Alias(Alias { expr, name, .. }) if name == KEEP => Ok(reads.parameter(*expr)),
        e if is_leaf(&e) => Ok(reads.parameter(e)),
        // What an outline reads is read by the one around it, as it is.
        Expr::ScalarFunction(mut f) if is_outline(&f.func) => {
            f.args = f.args.into_iter().map(|arg| reads.parameter(arg).data).collect();
            Ok(Transformed::new(Expr::ScalarFunction(f), true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let outline = Outline::new(body.data, reads.0.len());
    Ok(Expr::ScalarFunction(ScalarFunction {
        func: Arc::new(ScalarUDF::new_from_impl(outline)),
        args: reads.0,
    }))
}

/// What an expression reads: the arguments of its outline.
#[derive(Default)]
struct Reads(Vec<Expr>);

impl Reads {
    /// The parameter in the place of what is read.
    fn parameter(&mut self, read: Expr) -> Transformed<Expr> {
        let known = matches!(read, Expr::Column(_) | Expr::OuterReferenceColumn(..));
        let at = self.0.iter().position(|arg| known && *arg == read);
        let at = at.unwrap_or_else(|| {
            self.0.push(read);
            self.0.len() - 1
        });
        let column = Expr::Column(Column::new_unqualified(parameter_name(at)));
        Transformed::new(column, true, TreeNodeRecursion::Jump)
    }
}

/// Whether a function is an outline.
pub(super) fn is_outline(f: &ScalarUDF) -> bool {
    f.inner().downcast_ref::<Outline>().is_some()
}

thread_local! {
    /// Types of calls of outlines, by the address of the function, which no two calls share: one
    /// map for each stage of planning that is under way, the innermost last.
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

/// The functions are kept, so that their addresses stay theirs.
type Known = HashMap<*const ScalarUDF, (Arc<ScalarUDF>, DataType)>;

/// Runs a stage of planning during which what outlines read does not change its types.
pub(super) fn stage<T>(run: impl FnOnce() -> T) -> T {
    struct Stage;
    impl Drop for Stage {
        fn drop(&mut self) {
            KNOWN.with_borrow_mut(Vec::pop);
        }
    }
    KNOWN.with_borrow_mut(|stages| stages.push(Known::new()));
    let _stage = Stage;
    run()
}

/// The type of an expression, without the names of its parts, and with each outline typed once in a
/// [`stage`].
pub(super) fn type_of(expr: &Expr, schema: &DFSchema) -> DfResult<DataType> {
    match expr {
        Expr::Alias(alias) if !matches!(*alias.expr, Expr::Placeholder(_)) => {
            type_of(&alias.expr, schema)
        }
        Expr::BinaryExpr(b) => {
            let (left, right) = (type_of(&b.left, schema)?, type_of(&b.right, schema)?);
            BinaryTypeCoercer::new(&left, &b.op, &right).get_result_type()
        }
        Expr::ScalarFunction(f) => match f.func.inner().downcast_ref::<Outline>() {
            Some(outline) => type_of_outline(outline, f, schema),
            None => match type_of_call(f, schema)? {
                Some(data_type) => Ok(data_type),
                None => expr.get_type(schema),
            },
        },
        other => other.get_type(schema),
    }
}

fn types_of(exprs: &[Expr], schema: &DFSchema) -> DfResult<Vec<DataType>> {
    exprs.iter().map(|e| type_of(e, schema)).collect()
}

fn type_of_outline(outline: &Outline, f: &ScalarFunction, schema: &DFSchema) -> DfResult<DataType> {
    let at = Arc::as_ptr(&f.func);
    let known = KNOWN.with_borrow(|stages| Some(stages.last()?.get(&at)?.1.clone()));
    if let Some(known) = known {
        return Ok(known);
    }
    let data_type = outline.typed(&types_of(&f.args, schema)?)?.data_type.clone();
    KNOWN.with_borrow_mut(|stages| {
        if let Some(stage) = stages.last_mut() {
            stage.insert(at, (Arc::clone(&f.func), data_type.clone()));
        }
    });
    Ok(data_type)
}

/// The type of a call by the types of its arguments; nothing where more than these counts, and
/// where they do not fit, which DataFusion has words for.
fn type_of_call(f: &ScalarFunction, schema: &DFSchema) -> DfResult<Option<DataType>> {
    if f.args.iter().all(|arg| matches!(arg, Expr::Column(_) | Expr::Literal(..)))
        || matches!(f.func.name(), "struct" | "named_struct")
    {
        return Ok(None);
    }
    let types = types_of(&f.args, schema)?;
    let fields: Vec<FieldRef> =
        types.into_iter().map(|t| Arc::new(Field::new("", t, true))).collect();
    let Ok(fields) = fields_with_udf(&fields, f.func.as_ref()) else { return Ok(None) };
    let literals = f.args.iter().map(|arg| match arg {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    });
    let literals: Vec<_> = literals.collect();
    let args = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &literals };
    Ok(Some(f.func.return_field_from_args(args)?.data_type().clone()))
}

fn has_open_parameter(expr: &Expr) -> DfResult<bool> {
    expr.exists(|e| Ok(matches!(e, Expr::Placeholder(Placeholder { field: None, .. }))))
}

/// What a body does not contain: it becomes an argument.
fn is_leaf(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(f) => {
            let wide = f.args.len() > ARGUMENTS_MAX && is_outline(&f.func);
            wide || f.func.signature().volatility != Volatility::Immutable
        }
        Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::BinaryExpr(_)
        | Expr::Like(_)
        | Expr::SimilarTo(_)
        | Expr::Not(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::Case(_)
        | Expr::Cast(_)
        | Expr::TryCast(_)
        | Expr::InList(_) => false,
        _ => true,
    }
}

fn parameter_name(at: usize) -> String {
    format!("${at}")
}

/// A part of an expression as a function of what it reads.
struct Outline {
    body: Expr,
    parameters: usize,
    hash: u64,
    name: String,
    signature: Signature,
    /// The body for lists of argument types: there are few, one per stage of planning.
    typed: Mutex<Vec<Arc<Typed>>>,
}

/// A body whose types are known.
struct Typed {
    arguments: Vec<DataType>,
    schema: Arc<DFSchema>,
    body: Expr,
    data_type: DataType,
    compiled: OnceLock<crate::error::Result<Arc<dyn PhysicalExpr>>>,
}

impl Outline {
    fn new(body: Expr, parameters: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let hash = hasher.finish();
        Self {
            body,
            parameters,
            hash,
            name: format!("expression_{hash:016x}"),
            signature: Signature::user_defined(Volatility::Immutable),
            typed: Mutex::default(),
        }
    }

    fn typed(&self, arguments: &[DataType]) -> DfResult<Arc<Typed>> {
        {
            // The list only grows by whole entries.
            let typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = typed.iter().find(|t| t.arguments == arguments) {
                return Ok(Arc::clone(known));
            }
        }
        let made = Arc::new(self.type_body(arguments)?);
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        typed.push(Arc::clone(&made));
        Ok(made)
    }

    fn type_body(&self, arguments: &[DataType]) -> DfResult<Typed> {
        checkpoint()?;
        let fields = arguments.iter().enumerate();
        let fields = fields.map(|(at, t)| Field::new(parameter_name(at), t.clone(), true));
        let fields: Vec<Field> = fields.collect();
        let schema = Arc::new(DFSchema::try_from(Schema::new(fields))?);
        let body = stage(|| rewrite_in(self.body.clone(), &schema))?;
        let context = SimplifyContext::builder().with_schema(Arc::clone(&schema)).build();
        let body = ExprSimplifier::new(context).coerce(body, &schema)?;
        let data_type = stage(|| type_of(&body, &schema))?;
        let arguments = arguments.to_vec();
        Ok(Typed { arguments, schema, body, data_type, compiled: OnceLock::new() })
    }
}

impl Typed {
    fn compiled(&self) -> DfResult<&Arc<dyn PhysicalExpr>> {
        let compiled = self.compiled.get_or_init(|| {
            // Some functions of the library are nothing but what they simplify to.
            let context = SimplifyContext::builder().with_schema(Arc::clone(&self.schema)).build();
            let simplifier = ExprSimplifier::new(context);
            let simple = folding(|| simplifier.simplify(self.body.clone()));
            compile(&simple.map_err(super::errors::plan_error)?, &self.schema)
        });
        compiled.as_ref().map_err(|e| to_datafusion(e.clone()))
    }

    fn evaluate(&self, args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|v| matches!(v, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|v| v.to_array(rows)).collect::<DfResult<Vec<_>>>()?;
        let schema = Arc::clone(self.schema.inner());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        match self.compiled()?.evaluate(&batch)? {
            ColumnarValue::Array(array) if constant => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            value => Ok(value),
        }
    }
}

impl fmt::Debug for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outline").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Outline {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.hash == other.hash
                && self.parameters == other.parameters
                && self.body == other.body)
    }
}

impl Eq for Outline {}

impl Hash for Outline {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl ScalarUDFImpl for Outline {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(self.typed(types)?.data_type.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        Ok(Arc::new(Field::new(&self.name, self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        self.typed(&types)?.evaluate(&args)
    }
}
