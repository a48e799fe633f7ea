//! Offsets of window frames, `RANGE BETWEEN INTERVAL '1 day' PRECEDING ..`: the planner reads them
//! from the syntax tree, where it wants an interval as it was written and not the cast from text
//! that intervals have become everywhere else.

use std::convert::Infallible;
use std::ops::ControlFlow;

use sqlparser::ast::{
    CastKind, DataType, Expr, Interval, NamedWindowExpr, Query, Select, VisitMut, VisitorMut,
    WindowFrame, WindowFrameBound, WindowType,
};

/// Writes the offsets of all frames of a query as the planner reads them.
pub(super) fn plain_offsets(query: &mut Query) {
    let _: ControlFlow<Infallible> = query.visit(&mut Frames);
}

struct Frames;

impl VisitorMut for Frames {
    type Break = Infallible;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Infallible> {
        for window in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &mut window.1 {
                frame(spec.window_frame.as_mut());
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        if let Expr::Function(f) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut f.over
        {
            frame(spec.window_frame.as_mut());
        }
        ControlFlow::Continue(())
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
