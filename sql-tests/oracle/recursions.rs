//! Random recursive queries: rows that are reached from some over a relation, or a join of two,
//! with and without the number of steps. The recomputation goes round by round over a work table,
//! the view by its operator.

use std::collections::BTreeSet;

use rand::Rng;

use super::{Column, Generator, Query, Relation, Ty};

impl Generator {
    /// What is reached from the values of one query over pairs of values of another.
    pub(super) fn recursive(&mut self, depth: usize) -> Query {
        let name = self.name('r');
        let base = self.from(0);
        let pairs = self.from(0);
        let types = [Ty::Int, Ty::Big, Ty::Text, Ty::Ts];
        let known = |ty: &Ty| pairs.columns.iter().any(|c| c.ty == *ty);
        let Some(ty) = types.into_iter().find(known) else { return self.projection(0, None) };
        let column = |g: &mut Self| g.column(ty, &pairs.columns).unwrap_or_default();
        let (start, end) = (column(self), column(self));
        let all = self.chance(40);
        let counts = all || self.chance(40);
        let own = |column: &str| format!("{name}.{column}");

        let value = self.expr(ty, &base.columns, 1);
        let first = self.where_clause(&base, 60);
        let mut inside = pairs.columns.clone();
        inside.push(Column { name: own("n"), ty });
        let equal = self.one(&["=", "=", "=", "IS NOT DISTINCT FROM"]);
        let mut conditions = vec![format!("{start} {equal} {}", own("n"))];
        conditions.extend(pairs.condition.clone());
        if self.chance(40) {
            conditions.push(format!("({})", self.condition(&inside, 1)));
        }
        if counts {
            conditions.push(format!("{} < {}", own("d"), self.rng.random_range(1..4)));
        }
        let tables = match self.chance(50) {
            true => format!("{name}, {}", pairs.sql),
            false => format!("{} CROSS JOIN {name}", pairs.sql),
        };
        let distinct = if self.chance(20) { "DISTINCT " } else { "" };
        let step = match counts {
            true => format!("{end}, {} + 1", own("d")),
            false => end,
        };
        let depths = if counts { ", 0" } else { "" };
        let columns = if counts { "n, d" } else { "n" };
        let union = if all { "UNION ALL" } else { "UNION" };
        let query = format!(
            "WITH RECURSIVE {name} ({columns}) AS (SELECT {value}{depths} FROM {}{first} {union} \
             SELECT {distinct}{step} FROM {tables} WHERE {})",
            base.sql,
            conditions.join(" AND ")
        );

        let mut columns = vec![Column { name: "n".into(), ty }];
        if counts {
            columns.push(Column { name: "d".into(), ty: Ty::Int });
        }
        let relation = Relation {
            name: name.clone(),
            columns,
            key: 0,
            append_only: false,
            reads: BTreeSet::new(),
        };
        self.ctes.push(relation);
        let outer = match self.chance(50) {
            true => self.aggregation(depth.saturating_sub(1)),
            false => self.projection(depth.saturating_sub(1), None),
        };
        self.ctes.pop();
        Query { sql: format!("{query} {}", outer.sql), ..outer }
    }
}
