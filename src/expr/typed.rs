//! The operand of a cast while a query is planned. DataFusion names a cast after its operand alone,
//! so `GROUP BY ts, ts::date` would be two columns of one name; an identity function with the type
//! in its name tells them apart until casts are given their meaning.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

const PREFIX: &str = "as ";

/// The name of the function around what is cast to a type.
pub fn operand_name(data_type: &str) -> String {
    format!("{PREFIX}{data_type}")
}

/// The function of such a name.
pub fn operand_udf(name: &str) -> Option<Arc<ScalarUDF>> {
    let signature = Signature::any(1, Volatility::Immutable);
    let name = name.strip_prefix(PREFIX).map(|_| name.to_string())?;
    Some(Arc::new(ScalarUDF::new_from_impl(Operand { name, signature })))
}

/// What is in such a function.
pub fn operand_of(f: &ScalarUDF, args: &[Expr]) -> Option<Expr> {
    f.inner().downcast_ref::<Operand>()?;
    args.first().cloned()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Operand {
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for Operand {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            _ => plan_err!("a cast has one operand"),
        }
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        plan_err!("the operand of a cast is left in a plan")
    }
}
