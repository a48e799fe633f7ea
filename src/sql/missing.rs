//! A stand-in for functions that do not exist, so that their calls are planned as far as their
//! arguments have types, which belong into the error.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

use super::comparable::no_function;
use super::functions::function_names;
use crate::catalog::nearest;
use crate::error::Error;

/// A function that does not exist.
pub(super) fn missing_function(name: &str) -> Arc<ScalarUDF> {
    let some = [TypeSignature::VariadicAny, TypeSignature::Nullary];
    let signature = Signature::one_of(some.to_vec(), Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Missing { name: name.to_owned(), signature }))
}

/// The error for a call of such a function.
pub(super) fn missing_error(f: &ScalarFunction, arguments: &[Arc<Field>]) -> Option<Error> {
    let missing = f.func.inner().downcast_ref::<Missing>()?;
    let error = no_function(&missing.name, arguments);
    let known = function_names();
    Some(match nearest(&missing.name, known.iter().map(String::as_str)) {
        Some(near) => error.with_hint(format!("Perhaps you meant the function \"{near}\".")),
        None => error,
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Missing {
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for Missing {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Null)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        plan_err!("function {} does not exist", self.name)
    }
}
