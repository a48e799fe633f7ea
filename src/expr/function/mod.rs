//! PostgreSQL's functions that are ours: one file per family, each a list of
//! `("name(types) -> type", function)`.
//!
//! A call is resolved among the overloads of its name by PostgreSQL's rules ([`signature`]); the
//! binder casts the arguments, and the function sees columns of exactly its types ([`args`]). A
//! function is strict (NULL in, NULL out) unless it is listed with [`Nulls::Seen`].

mod args;
mod array;
mod bits;
mod bytes;
mod date_format;
mod dates;
mod digest;
mod elements;
mod gather;
mod json;
mod json_build;
mod json_columns;
mod json_path;
pub(crate) mod lists;
mod math;
mod memo;
mod number_format;
mod order;
mod pattern;
mod quantified;
mod record;
mod regexp;
mod series;
mod signature;
mod text;

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use self::args::Args;
pub(crate) use self::dates::time_zone;
pub(crate) use self::json_build::{object_key, write_json};
use self::signature::Overload;
pub(crate) use self::signature::common as common_type;
use super::errors::to_datafusion;
use super::size::check_arguments;
use crate::delta::text::pg_type_name;
use crate::error::{Error, Result, sqlstate};

/// What a function does with NULL arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nulls {
    /// It gives NULL without being asked.
    Strict,
    /// It sees them.
    Seen,
}

/// The body of a function: columns in, a column out.
type Run = fn(&Args<'_>) -> Result<ArrayRef>;

/// A function of a family: signature, NULLs, body.
type Def = (&'static str, Nulls, Run);

const FAMILIES: &[&[Def]] = &[
    array::FUNCTIONS,
    bits::FUNCTIONS,
    bytes::FUNCTIONS,
    date_format::FUNCTIONS,
    dates::FUNCTIONS,
    digest::FUNCTIONS,
    elements::FUNCTIONS,
    json::FUNCTIONS,
    json_build::FUNCTIONS,
    json_columns::FUNCTIONS,
    json_path::FUNCTIONS,
    math::FUNCTIONS,
    number_format::FUNCTIONS,
    order::FUNCTIONS,
    quantified::FUNCTIONS,
    record::FUNCTIONS,
    regexp::FUNCTIONS,
    series::FUNCTIONS,
    text::FUNCTIONS,
];

static FUNCTIONS: LazyLock<HashMap<&'static str, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut overloads: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for (text, nulls, run) in FAMILIES.iter().flat_map(|f| f.iter()) {
        match signature::parse(text, *nulls, *run) {
            Some((name, overload)) => overloads.entry(name).or_default().push(overload),
            None => debug_assert!(false, "a signature that can't be read: {text}"),
        }
    }
    let make = |(name, overloads)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        (name, Arc::new(ScalarUDF::new_from_impl(PgFunction { name, overloads, signature })))
    };
    overloads.into_iter().map(make).collect()
});

/// All functions by name; operators that are functions have their own spelling as name.
pub(crate) fn functions() -> impl Iterator<Item = (&'static str, &'static Arc<ScalarUDF>)> {
    FUNCTIONS.iter().map(|(name, f)| (*name, f))
}

/// A call of one of our functions, which must exist.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> DfResult<Expr> {
    match FUNCTIONS.get(name) {
        Some(f) => Ok(f.call(args)),
        None => plan_err!("Invalid function '{name}'"),
    }
}

/// The types that a call of one of our functions wants its arguments in; [`DataType::Null`] stands
/// for literals of unknown type. `None` when `f` is not ours.
pub(crate) fn argument_types(f: &ScalarUDF, types: &[DataType]) -> Option<Result<Vec<DataType>>> {
    let own = f.inner().downcast_ref::<PgFunction>()?;
    Some(own.resolve(types).map(|found| found.arguments))
}

#[derive(Debug)]
struct PgFunction {
    name: &'static str,
    overloads: Vec<Overload>,
    signature: Signature,
}

impl PartialEq for PgFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for PgFunction {}

impl Hash for PgFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PgFunction {
    fn resolve(&self, types: &[DataType]) -> Result<signature::Resolved<'_>> {
        // Functions of the library give views.
        let plain = |t: &DataType| match t {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
            t => t.clone(),
        };
        let types: Vec<DataType> = types.iter().map(plain).collect();
        if let Some(found) = signature::resolve(&self.overloads, &types) {
            return Ok(found);
        }
        let names: Vec<_> = types.iter().map(pg_type_name).collect();
        let message = match (self.name.starts_with(|c: char| c.is_ascii_alphabetic()), &*names) {
            (false, [l, r]) => format!("operator does not exist: {l} {} {r}", self.name),
            (false, [r]) => format!("operator does not exist: {} {r}", self.name),
            _ => format!("function {}({}) does not exist", self.name, names.join(", ")),
        };
        Err(Error::user(sqlstate::UNDEFINED_FUNCTION, message).with_hint(
            "No function or operator matches the given name and argument types. You might need \
             to add explicit type casts.",
        ))
    }

    /// While the planner looks at types, a text may be a literal of unknown type, and a bigint one
    /// of integer.
    fn resolve_early(&self, types: &[DataType]) -> Result<signature::Resolved<'_>> {
        let small = |t: &DataType| match t {
            DataType::Int64 => DataType::Int32,
            t => t.clone(),
        };
        let unknown = |t: &DataType| match t {
            DataType::Utf8 => DataType::Null,
            t => small(t),
        };
        let guess = |as_if: &dyn Fn(&DataType) -> DataType| {
            self.resolve(&types.iter().map(as_if).collect::<Vec<_>>())
        };
        self.resolve(types).or_else(|e| guess(&small).or_else(|_| guess(&unknown)).map_err(|_| e))
    }
}

impl ScalarUDFImpl for PgFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn display_name(&self, args: &[Expr]) -> DfResult<String> {
        let names: Vec<_> = args.iter().map(ToString::to_string).collect();
        Ok(match (self.name.starts_with(|c: char| c.is_ascii_alphabetic()), &*names) {
            (false, [l, r]) => format!("{l} {} {r}", self.name),
            _ => format!("{}({})", self.name, names.join(", ")),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(self.resolve_early(types).map_err(to_datafusion)?.arguments)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(self.resolve_early(types).map_err(to_datafusion)?.result)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        check_arguments(&args.args).map_err(to_datafusion)?;
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        let found = self.resolve(&types).map_err(to_datafusion)?;
        let rows = if constant { 1 } else { args.number_rows };
        let result = args.return_field.data_type();
        let view = Args::new(&args.args, &found, Cow::Borrowed(result), rows)?;
        let array = (found.overload.run)(&view).map_err(to_datafusion)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)),
            false => Ok(ColumnarValue::Array(array)),
        }
    }
}

/// The list type of an element type, as every list in the engine is.
pub(crate) fn list_of(element: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element.clone(), true)))
}
