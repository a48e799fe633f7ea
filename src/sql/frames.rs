//! Offsets of window frames, `RANGE BETWEEN INTERVAL '1 day' PRECEDING ..`: the planner reads them
//! from the syntax tree, where it wants an interval as it was written and not the cast from text
//! that intervals have become everywhere else. A frame that begins behind its end, which it
//! refuses, is written as another one without rows. A frame over a window of the WINDOW clause
//! gets its PARTITION BY and ORDER BY, which the planner does not look for.

use std::collections::BTreeMap;

use sqlparser::ast::{
    CastKind, DataType, Expr, Interval, NamedWindowDefinition, NamedWindowExpr, Query, Select,
    Value, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};

use super::parser::fold;
use super::visit::{Rewrite, walk_mut};
use crate::error::Result;

/// Writes the offsets of all frames of a query as the planner reads them.
pub(super) fn plain_offsets(query: &mut Query) {
    let _done = walk_mut(query, &mut Frames);
}

struct Frames;

impl Rewrite for Frames {
    fn post_select(&mut self, select: &mut Select) -> Result<()> {
        for window in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &mut window.1 {
                frame(spec.window_frame.as_mut());
            }
        }
        if select.named_window.is_empty() {
            return Ok(());
        }
        let plain = |window: &NamedWindowDefinition| match &window.1 {
            NamedWindowExpr::WindowSpec(spec) => {
                let whole = spec.window_name.is_none() && spec.window_frame.is_none();
                whole.then(|| (fold(&window.0), spec.clone()))
            }
            NamedWindowExpr::NamedWindow(_) => None,
        };
        let named = select.named_window.iter().filter_map(plain).collect();
        walk_mut(&mut select.projection, &mut Named(named))
    }

    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Function(f) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut f.over
        {
            frame(spec.window_frame.as_mut());
        }
        Ok(())
    }
}

/// Windows by name.
struct Named(BTreeMap<String, WindowSpec>);

impl Rewrite for Named {
    fn post_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Function(f) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut f.over
            && spec.partition_by.is_empty()
            && spec.order_by.is_empty()
            && spec.window_frame.is_some()
            && let Some(named) = spec.window_name.as_ref().and_then(|n| self.0.get(&fold(n)))
        {
            spec.window_name = None;
            spec.partition_by.clone_from(&named.partition_by);
            spec.order_by.clone_from(&named.order_by);
        }
        Ok(())
    }
}

fn frame(frame: Option<&mut WindowFrame>) {
    let Some(frame) = frame else { return };
    for bound in [Some(&mut frame.start_bound), frame.end_bound.as_mut()].into_iter().flatten() {
        if let WindowFrameBound::Preceding(Some(offset))
        | WindowFrameBound::Following(Some(offset)) = bound
        {
            plain(offset);
        }
    }
    without_rows(frame);
}

/// `ROWS BETWEEN 1 PRECEDING AND 10 PRECEDING` as a frame behind all rows.
fn without_rows(frame: &mut WindowFrame) {
    let number = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(Some(n)) => Some(-literal(n)?),
        WindowFrameBound::Following(Some(n)) => literal(n),
        _ => None,
    };
    let (Some(start), Some(end)) =
        (number(&frame.start_bound), frame.end_bound.as_ref().and_then(number))
    else {
        return;
    };
    if start > end {
        let behind = |n: i64| {
            let value = Value::Number(n.to_string(), false);
            WindowFrameBound::Following(Some(Box::new(Expr::Value(value.into()))))
        };
        frame.units = WindowFrameUnits::Rows;
        frame.start_bound = behind(BEHIND_ALL);
        frame.end_bound = Some(behind(BEHIND_ALL));
    }
}

/// More rows than a partition has.
const BEHIND_ALL: i64 = 1 << 48;

fn literal(offset: &Expr) -> Option<f64> {
    match offset {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn plain(offset: &mut Expr) {
    let Expr::Cast { expr, data_type: DataType::Interval { .. }, kind, .. } = offset else {
        return;
    };
    if !matches!(kind, CastKind::Cast | CastKind::DoubleColon) {
        return;
    }
    *offset = Expr::Interval(Interval {
        value: expr.clone(),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    });
}
