//! Stand-ins for functions whose arguments must be of one type, used while a query is planned.
//!
//! The planner types a call before it can be told that a text literal is an *unknown* that takes
//! the type of its neighbours, so `coalesce(ts, '2024-01-01')` would be refused at once. The
//! stand-in accepts it; the rewrite to PostgreSQL's meaning then types the literal and puts the
//! real function in its place.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// A stand-in for a function.
pub fn stand_in(real: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(StandIn { real, signature }))
}

/// The function behind a stand-in.
pub fn behind_stand_in(f: &ScalarUDF) -> Option<&Arc<ScalarUDF>> {
    f.inner().downcast_ref::<StandIn>().map(|s| &s.real)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StandIn {
    real: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for StandIn {
    fn name(&self) -> &str {
        self.real.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let text = |t: &&DataType| matches!(t, DataType::Utf8 | DataType::Null);
        match types.iter().find(|t| !text(t)) {
            None => self.real.coerce_types(types).or_else(|_| Ok(types.to_vec())),
            Some(known) => {
                let typed: Vec<_> = types
                    .iter()
                    .map(|t| if text(&t) { known.clone() } else { t.clone() })
                    .collect();
                self.real.coerce_types(&typed).or(Ok(typed))
            }
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        // What the real function gives is known once it is in place.
        match types.iter().find(|t| !t.is_null()).or(types.first()) {
            Some(first) => Ok(first.clone()),
            None => plan_err!("{} needs arguments", self.name()),
        }
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        plan_err!("a stand-in for {} is left in a plan", self.name())
    }
}
