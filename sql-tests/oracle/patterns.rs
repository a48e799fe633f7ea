//! Random row patterns: MATCH_RECOGNIZE over a relation, with patterns, conditions and measures of
//! every form. The recomputation matches by plain backtracking over the pattern as it was written
//! (`expr/pattern/reference.rs`), the view by its operator.

use rand::Rng;

use super::{Column, Generator, Query, Ty, has_time};

/// The variables of a pattern.
const VARIABLES: [&str; 4] = ["a", "b", "c", "d"];

impl Generator {
    /// The matches of a pattern in a relation.
    pub(super) fn recognized(&mut self) -> Query {
        let relation = self.relation();
        let mut scope = relation.columns;
        scope.retain(|c| c.ty != Ty::Avg);
        if scope.is_empty() {
            return self.projection(0, None);
        }
        let variables = &VARIABLES[..self.rng.random_range(1..=VARIABLES.len())];
        let any = |g: &mut Self| scope[g.rng.random_range(0..scope.len())].clone();
        let timed = has_time(&scope) && self.chance(85);
        let order = if timed { "at".to_owned() } else { any(self).name };
        let partition = self.chance(75).then(|| any(self));
        // Conditions that look back leave many ways to try.
        let looks_back = self.chance(35);
        let pattern = self.pattern(variables, if looks_back { 1 } else { 3 });
        let variables: Vec<&str> =
            variables.iter().copied().filter(|v| pattern.contains(*v)).collect();
        let variables = variables.as_slice();
        let mut sql = String::new();
        if let Some(partition) = &partition {
            sql += &format!("PARTITION BY {} ", partition.name);
        }
        sql += &format!("ORDER BY {order} ");
        let all_rows = self.chance(40);
        let within = timed && self.chance(60);
        let mut measures = self.measures(variables, &scope);
        if within && self.chance(50) {
            measures.push(("MATCH_DEADLINE()".to_owned(), Ty::Ts));
        }
        let named = measures.iter().enumerate().map(|(i, (text, _))| format!("{text} AS m{i}"));
        sql += &format!("MEASURES {} ", named.collect::<Vec<_>>().join(", "));
        if all_rows {
            let mode = ["", " OMIT EMPTY MATCHES", " WITH UNMATCHED ROWS", " SHOW EMPTY MATCHES"];
            let modes = if pattern.contains("{-") { &mode[..2] } else { &mode };
            sql += &format!("ALL ROWS PER MATCH{} ", self.one(modes));
        }
        sql += &self.skip(variables);
        sql += &format!("PATTERN ({pattern}) ");
        if within {
            let bound = self.one(&["5 seconds", "20 seconds", "1 minute", "1 hour"]);
            let emit = if self.chance(30) { " EMIT TIMEOUT" } else { "" };
            sql += &format!("WITHIN INTERVAL '{bound}'{emit} ");
        }
        if variables.contains(&"a") && variables.contains(&"c") && self.chance(40) {
            sql += "SUBSET u = (a, c) ";
        }
        let mut defined = Vec::new();
        for variable in variables {
            if defined.is_empty() || self.chance(70) {
                let seen = self.seen((variable, looks_back), variables, &scope);
                let before = std::mem::replace(&mut self.subqueries, 0);
                defined.push(format!("{variable} AS {}", self.condition(&seen, 1)));
                self.subqueries = before;
            }
        }
        sql += &format!("DEFINE {}", defined.join(", "));
        let columns = measures.iter().enumerate();
        let columns = columns.map(|(i, (_, ty))| Column { name: format!("c{i}"), ty: *ty });
        let mut columns: Vec<Column> = columns.collect();
        let items = (0..measures.len()).map(|i| format!("m{i} AS c{i}"));
        let mut items: Vec<String> = items.collect();
        if let Some(Column { name, ty }) = partition {
            items.push(format!("{name} AS c{}", columns.len()));
            columns.push(Column { name: format!("c{}", columns.len()), ty });
        }
        let from = format!("{} MATCH_RECOGNIZE ({sql}) AS {}", relation.name, self.name('a'));
        Query { sql: format!("SELECT {} FROM {from}", items.join(", ")), columns }
    }

    fn skip(&mut self, variables: &[&str]) -> String {
        let variable = self.one(variables);
        match self.rng.random_range(0..10) {
            0..4 => String::new(),
            4..8 => "AFTER MATCH SKIP TO NEXT ROW ".to_owned(),
            8 => format!("AFTER MATCH SKIP TO {variable} "),
            _ => format!("AFTER MATCH SKIP TO FIRST {variable} "),
        }
    }

    fn pattern(&mut self, variables: &[&str], depth: usize) -> String {
        let part = |g: &mut Self| match g.rng.random_range(0..12) {
            0..3 if depth > 0 => format!("({})", g.pattern(variables, depth - 1)),
            3 if depth > 0 => format!("{{- {} -}}", g.pattern(variables, depth - 1)),
            4 if depth > 0 && variables.len() > 1 => {
                let (one, other) = (g.one(variables), g.pattern(variables, depth - 1));
                format!("PERMUTE({one}, {other})")
            }
            _ => g.one(variables).to_owned(),
        };
        let mut ways = Vec::new();
        for _ in 0..if self.chance(25) { 2 } else { 1 } {
            let mut parts = Vec::new();
            for _ in 0..self.rng.random_range(1..=3) {
                let counts = ["", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{2,}?"];
                parts.push(format!("{}{}", part(self), self.one(&counts)));
            }
            ways.push(parts.join(" "));
        }
        let pattern = ways.join(" | ");
        match depth != 2 && self.chance(8) {
            true if self.chance(50) => format!("^ ({pattern})"),
            true => format!("({pattern}) $"),
            false => pattern,
        }
    }

    /// What a condition of a variable can see.
    fn seen(
        &mut self,
        (variable, looks_back): (&str, bool),
        variables: &[&str],
        scope: &[Column],
    ) -> Vec<Column> {
        let mut seen = Vec::new();
        for _ in 0..self.rng.random_range(2..=5) {
            let Column { name, ty } = scope[self.rng.random_range(0..scope.len())].clone();
            let other = self.one(variables);
            let (name, ty) = match self.rng.random_range(0..if looks_back { 12 } else { 6 }) {
                0 | 1 => (name, ty),
                2 => (format!("{variable}.{name}"), ty),
                3 => (format!("PREV({name})"), ty),
                4 => (format!("PREV({variable}.{name}, 2)"), ty),
                5 => (format!("NEXT({name})"), ty),
                6 => (format!("{other}.{name}"), ty),
                7 => (format!("FIRST({other}.{name})"), ty),
                8 => (format!("LAST({name}, 1)"), ty),
                9 => (format!("PREV(FIRST({name}, 1))"), ty),
                10 => (format!("count({other}.*)"), Ty::Big),
                _ if ty.is_number() => (format!("max({other}.{name})"), ty),
                _ => (format!("count({name})"), Ty::Big),
            };
            seen.push(Column { name, ty });
        }
        seen
    }

    fn measures(&mut self, variables: &[&str], scope: &[Column]) -> Vec<(String, Ty)> {
        let mut measures = Vec::new();
        for _ in 0..self.rng.random_range(1..=4) {
            let Column { name, ty } = scope[self.rng.random_range(0..scope.len())].clone();
            let variable = self.one(variables);
            let prefix = self.one(&["", "FINAL ", "RUNNING "]);
            measures.push(match self.rng.random_range(0..11) {
                0 => (format!("{variable}.{name}"), ty),
                1 => (format!("{prefix}FIRST({variable}.{name}, 1)"), ty),
                2 => (format!("{prefix}LAST({name})"), ty),
                3 => (format!("PREV({name}, 2)"), ty),
                4 => (format!("NEXT({variable}.{name})"), ty),
                5 => ("MATCH_NUMBER()".to_owned(), Ty::Big),
                6 => ("CLASSIFIER()".to_owned(), Ty::Text),
                7 => (format!("{prefix}count({variable}.*)"), Ty::Big),
                8 if ty == Ty::Int => (format!("{prefix}sum({variable}.{name})"), Ty::Big),
                8 => (format!("{prefix}count(*)"), Ty::Big),
                9 if ty.is_number() => (format!("{prefix}min({name})"), ty),
                _ => (format!("coalesce(PREV({name}), {name})"), ty),
            });
        }
        measures
    }
}
