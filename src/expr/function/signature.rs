//! Signatures as text, and PostgreSQL's choice among overloads: exact types first, then those that
//! cast implicitly, numbers upwards; a literal of unknown type is what the candidates want, text if
//! one of them does.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

use super::{Nulls, Run, list_of};
use crate::delta::text::{NUMERIC_PRECISION, NUMERIC_SCALE, UTC};
use crate::expr::numeric::digits_of;

/// A parameter or result of a signature.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// One type.
    Exact(DataType),
    /// `numeric` of any precision and scale; as a result the undeclared one.
    Numeric,
    /// Anything, each argument by itself.
    Any,
    /// Anything, one type for all of the signature: itself or as an array.
    Element,
    Array,
    /// As a result: the type of an argument.
    Like(usize),
}

/// One signature of a function.
#[derive(Debug)]
pub(super) struct Overload {
    params: Vec<Kind>,
    /// The last parameter may repeat, or be absent.
    variadic: bool,
    result: Kind,
    pub(super) nulls: Nulls,
    pub(super) run: Run,
}

/// An overload that fits a call.
#[derive(Debug)]
pub(super) struct Resolved<'a> {
    pub(super) overload: &'a Overload,
    /// The types that the arguments are to be cast to.
    pub(super) arguments: Vec<DataType>,
    pub(super) result: DataType,
}

/// Reads `name(type, type...) -> type`.
pub(super) fn parse(
    text: &'static str,
    nulls: Nulls,
    run: Run,
) -> Option<(&'static str, Overload)> {
    let (name, rest) = text.split_once('(')?;
    let (params, result) = rest.rsplit_once(") -> ")?;
    let variadic = params.ends_with("...");
    let params = params.trim_end_matches("...").split(", ").filter(|p| !p.is_empty());
    let params = params.map(kind).collect::<Option<Vec<_>>>()?;
    Some((name, Overload { params, variadic, result: kind(result)?, nulls, run }))
}

fn kind(name: &str) -> Option<Kind> {
    if let Some(element) = name.strip_suffix("[]") {
        let element = match kind(element)? {
            Kind::Exact(element) => element,
            Kind::Numeric => DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE),
            _ => return None,
        };
        return Some(Kind::Exact(list_of(&element)));
    }
    if let Some(argument) = name.strip_prefix('$') {
        return Some(Kind::Like(argument.parse().ok()?));
    }
    Some(Kind::Exact(match name {
        "numeric" => return Some(Kind::Numeric),
        "any" => return Some(Kind::Any),
        "anyelement" => return Some(Kind::Element),
        "anyarray" => return Some(Kind::Array),
        "boolean" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "double" => DataType::Float64,
        "text" => DataType::Utf8,
        "bytea" => DataType::Binary,
        "jsonb" => DataType::LargeUtf8,
        "uuid" => DataType::FixedSizeBinary(16),
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    }))
}

/// How an argument meets a parameter; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    /// Implicit casts, and those not to a preferred type.
    casts: usize,
    unpreferred: usize,
    /// Unknown literals taken for something else than text.
    guesses: usize,
    /// Polymorphic parameters: a plain one wins.
    loose: usize,
}

/// The overload for arguments of these types, where `Null` is an unknown literal.
pub(super) fn resolve<'a>(overloads: &'a [Overload], types: &[DataType]) -> Option<Resolved<'a>> {
    let mut best: Option<(Fit, Resolved<'a>)> = None;
    for overload in overloads {
        if let Some((fit, resolved)) = try_overload(overload, types)
            && best.as_ref().is_none_or(|(b, _)| fit < *b)
        {
            best = Some((fit, resolved));
        }
    }
    best.map(|(_, resolved)| resolved)
}

fn try_overload<'a>(o: &'a Overload, types: &[DataType]) -> Option<(Fit, Resolved<'a>)> {
    let fixed = o.params.len() - usize::from(o.variadic);
    let fits = if o.variadic { types.len() >= fixed } else { types.len() == fixed };
    if !fits {
        return None;
    }
    let param = |i: usize| o.params.get(i).or(o.params.last());
    let element = element_type(o, types, &param)?;
    let mut fit = Fit { casts: 0, unpreferred: 0, guesses: 0, loose: 0 };
    let mut arguments = Vec::with_capacity(types.len());
    for (i, given) in types.iter().enumerate() {
        let (wanted, loose) = match param(i)? {
            Kind::Exact(t) => (t.clone(), false),
            Kind::Numeric => (numeric(given)?, false),
            Kind::Any | Kind::Like(_) => match given {
                DataType::Null => (DataType::Utf8, true),
                t => (t.clone(), true),
            },
            Kind::Element => (element.clone()?, true),
            Kind::Array => (list_of(&element.clone()?), true),
        };
        fit.loose += usize::from(loose);
        if *given == DataType::Null {
            fit.guesses += usize::from(wanted != DataType::Utf8);
        } else if *given != wanted {
            if !implicit(given, &wanted) {
                return None;
            }
            fit.casts += 1;
            let preferred = matches!(wanted, DataType::Float64)
                || matches!(wanted, DataType::Timestamp(_, Some(_)));
            fit.unpreferred += usize::from(!preferred);
        }
        arguments.push(wanted);
    }
    let result = match &o.result {
        Kind::Exact(t) => t.clone(),
        Kind::Numeric => DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE),
        Kind::Element => element?,
        Kind::Array => list_of(&element?),
        Kind::Like(i) => arguments.get(*i - 1)?.clone(),
        Kind::Any => return None,
    };
    Some((fit, Resolved { overload: o, arguments, result }))
}

/// The type that `anyelement` stands for in a call: `Some(None)` when the signature has none.
fn element_type<'p>(
    o: &'p Overload,
    types: &[DataType],
    param: &impl Fn(usize) -> Option<&'p Kind>,
) -> Option<Option<DataType>> {
    let mut found: Option<DataType> = None;
    let mut polymorphic = matches!(o.result, Kind::Element | Kind::Array);
    for (i, given) in types.iter().enumerate() {
        let candidate = match (param(i)?, given) {
            (Kind::Element | Kind::Array, DataType::Null) => {
                polymorphic = true;
                continue;
            }
            (Kind::Element, t) => t,
            (Kind::Array, DataType::List(field)) => field.data_type(),
            (Kind::Array, _) => return None,
            _ => continue,
        };
        polymorphic = true;
        found = Some(match found {
            None => candidate.clone(),
            Some(f) if f == *candidate => f,
            Some(f) => common(&f, candidate)?,
        });
    }
    match (polymorphic, found) {
        (false, _) => Some(None),
        // All of them unknown: text, as in ARRAY['a'].
        (true, found) => Some(Some(found.unwrap_or(DataType::Utf8))),
    }
}

/// The one of two types that both can be.
pub(crate) fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    if let (DataType::Decimal128(..), DataType::Decimal128(..)) = (a, b) {
        let ((ap, a_s), (bp, b_s)) = (digits_of(a)?, digits_of(b)?);
        let scale = a_s.max(b_s);
        let whole = (i16::from(ap) - i16::from(a_s)).max(i16::from(bp) - i16::from(b_s));
        let precision = (whole + i16::from(scale)).clamp(1, i16::from(NUMERIC_PRECISION));
        return Some(DataType::Decimal128(precision as u8, scale));
    }
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (DataType::Decimal128(..), b) if b.is_integer() => common(a, &numeric(b)?),
        (a, DataType::Decimal128(..)) if a.is_integer() => common(&numeric(a)?, b),
        (a, b) if implicit(a, b) => Some(b.clone()),
        (a, b) if implicit(b, a) => Some(a.clone()),
        _ => None,
    }
}

/// The decimal type that a number is as `numeric`.
fn numeric(given: &DataType) -> Option<DataType> {
    match given {
        DataType::Null => Some(DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE)),
        t => digits_of(t).map(|(p, s)| DataType::Decimal128(p, s)),
    }
}

/// Whether PostgreSQL casts without being asked.
fn implicit(from: &DataType, to: &DataType) -> bool {
    let rank = |t: &DataType| match t {
        DataType::Int16 => Some(0),
        DataType::Int32 => Some(1),
        DataType::Int64 => Some(2),
        DataType::Decimal128(..) => Some(3),
        DataType::Float32 => Some(4),
        DataType::Float64 => Some(5),
        DataType::Date32 => Some(10),
        DataType::Timestamp(_, None) => Some(11),
        DataType::Timestamp(_, Some(_)) => Some(12),
        _ => None,
    };
    match (rank(from), rank(to)) {
        (Some(3), Some(3)) => true,
        (Some(f), Some(t)) => f < t && (t < 10) == (f < 10),
        _ => match (from, to) {
            (DataType::List(f), DataType::List(t)) => {
                f.data_type() == t.data_type() || implicit(f.data_type(), t.data_type())
            }
            (from, to) => matches!((from, to), (DataType::Time64(_), DataType::Interval(_))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overload(text: &'static str) -> Overload {
        parse(text, Nulls::Strict, |_| Err(crate::error::Error::internal(""))).expect(text).1
    }

    #[test]
    fn the_choice_is_that_of_postgresql() {
        let all = ["f(numeric) -> numeric", "f(double) -> double", "f(text, int) -> text"];
        let all: Vec<_> = all.into_iter().map(overload).collect();
        let result = |types: &[DataType]| resolve(&all, types).map(|r| r.result);
        assert_eq!(result(&[DataType::Int32]), Some(DataType::Float64));
        let numeric = DataType::Decimal128(38, 10);
        assert_eq!(result(&[DataType::Decimal128(3, 1)]), Some(numeric));
        assert_eq!(result(&[DataType::Null, DataType::Int16]), Some(DataType::Utf8));
        assert_eq!(result(&[DataType::Utf8]), None);
        let poly = [overload("g(anyarray, anyelement) -> anyarray")];
        let r = resolve(&poly, &[list_of(&DataType::Int32), DataType::Int64]).expect("fits");
        assert_eq!(r.result, list_of(&DataType::Int64));
        let r = resolve(&poly, &[DataType::Null, DataType::Int64]).expect("fits");
        assert_eq!(r.arguments[0], list_of(&DataType::Int64));
        let many = [overload("h(text, any...) -> text")];
        assert!(resolve(&many, &[DataType::Utf8]).is_some());
        assert!(resolve(&many, &[]).is_none());
    }
}
