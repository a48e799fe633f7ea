//! Offsets of window frames, `RANGE BETWEEN INTERVAL '1 day' PRECEDING ..`: the planner reads them
//! from the syntax tree, where it wants an interval as it was written and not the cast from text
//! that intervals have become everywhere else.

use sqlparser::ast::{
    CastKind, DataType, Expr, Interval, NamedWindowExpr, Query, Select, WindowFrame,
    WindowFrameBound, WindowType,
};

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
        Ok(())
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

fn frame(frame: Option<&mut WindowFrame>) {
    let Some(frame) = frame else { return };
    for bound in [Some(&mut frame.start_bound), frame.end_bound.as_mut()].into_iter().flatten() {
        if let WindowFrameBound::Preceding(Some(offset))
        | WindowFrameBound::Following(Some(offset)) = bound
        {
            plain(offset);
        }
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
