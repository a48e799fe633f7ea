//! Views over windows of streams, with what they should show.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::model::{Late, SECOND, Stream, Windows, joined};
use crate::streams::Channel;

/// One view.
pub struct View {
    pub name: String,
    pub sql: String,
    /// The query over tables of what counts.
    pub expected: String,
    /// Those tables.
    pub inputs: Vec<(String, RecordBatch)>,
    /// Lines of `$late`, see [`View::late_line`].
    pub late: Vec<String>,
    /// Whether one late row can be found by two parts of the plan.
    pub shared: bool,
    /// Rows of `$errors`.
    pub errors: Option<usize>,
    /// Whether late rows have their id among the columns.
    ids: bool,
    /// Whether the window that a row missed is known.
    bounds: bool,
}

const KEYS: &str = "k, window_start, window_end";
const RESULTS: &str = "count(*) AS n, sum(id) AS ids, sum(id * id) AS squares, \
                       min(v) AS least, max(v) AS most";

impl View {
    /// What is compared of a line `window_start | window_end | watermark | weight | row` of
    /// `$late`: the id of the row and what it met.
    pub fn late_line(&self, line: &str) -> String {
        let parts: Vec<&str> = line.splitn(5, " | ").collect();
        let [start, end, watermark, weight, row] = parts[..] else { panic!("columns of {line}") };
        let id = row.split_once("\"id\":").map(|(_, rest)| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].to_owned()
        });
        let bounds = if self.bounds { format!("{start} {end}") } else { String::new() };
        let id = if self.ids { id.expect("a late row has its id") } else { String::new() };
        format!("{id} x{weight} {bounds} at {watermark}")
    }
}

/// What a view is made from.
struct Making<'a> {
    random: &'a mut SmallRng,
    streams: &'a [Stream],
    number: usize,
    inputs: Vec<(String, RecordBatch)>,
    late: Vec<(usize, Late)>,
    /// ALLOWED LATENESS in seconds.
    lateness: i64,
    /// Rows that are filtered away are not late.
    filter: fn(i64) -> bool,
}

impl Making<'_> {
    fn windows(&mut self) -> Windows {
        let step = self.random.random_range(2..9);
        let times = self.random.random_range(2..5);
        match self.random.random_range(0..3) {
            0 => Windows::Tumble(step),
            1 => {
                let odd = self.random.random_range(0..step);
                Windows::Hop { slide: step, size: step * times - odd }
            }
            _ => Windows::Cumulate { step, size: step * times },
        }
    }

    fn input(&mut self, rows: RecordBatch) -> String {
        let name = format!("v{}_{}", self.number, self.inputs.len());
        self.inputs.push((name.clone(), rows));
        name
    }

    /// A table function over a stream, and the table of what it gives without late rows.
    fn over(&mut self, stream: usize, windows: Windows) -> (String, String) {
        let of = &self.streams[stream];
        let (rows, late) = of.windowed(windows, self.lateness * SECOND);
        self.late.extend(late.into_iter().map(|l| (stream, l)));
        let live = windows.sql(of.name);
        (live, self.input(rows))
    }

    fn session(&mut self, stream: usize) -> (String, String) {
        let gap = self.random.random_range(1..9);
        let of = &self.streams[stream];
        let (rows, late) = of.on_time(self.lateness * SECOND);
        self.late.extend(late.into_iter().map(|l| (stream, l)));
        let name = self.input(rows);
        let call = |name: &str| format!("session({name}, ts, k, INTERVAL '{gap} seconds')");
        (call(of.name), call(&name))
    }

    /// Rows without a key match nothing: they are left out before they can be late.
    fn with_keys(&mut self) {
        let keys: Vec<_> = self.streams.iter().map(|s| s.rows.column(1).clone()).collect();
        self.late.retain(|(stream, (row, ..))| keys[*stream].is_valid(*row));
    }

    /// The view with what stands for `{0}`, `{1}` in it.
    fn view(self, sql: &str, over: &[(String, String)]) -> View {
        let (mut live, mut expected) = (sql.to_owned(), sql.to_owned());
        if self.lateness > 0 {
            let clause =
                format!(" EMIT ON CHANGE ALLOWED LATENESS INTERVAL '{}' SECOND", self.lateness);
            live.push_str(&clause);
        }
        for (i, (of_view, of_table)) in over.iter().enumerate() {
            live = live.replace(&format!("{{{i}}}"), of_view);
            expected = expected.replace(&format!("{{{i}}}"), of_table);
        }
        let mut view = View {
            name: format!("v{}", self.number),
            sql: live,
            expected,
            inputs: self.inputs,
            late: Vec::new(),
            shared: over.len() > 1,
            errors: None,
            ids: true,
            // Windows of a row that are not told apart by their ends are not known.
            bounds: !sql.contains("window_start") || !over[0].0.starts_with("cumulate"),
        };
        view.bounds &= !over.iter().any(|o| o.0.starts_with("cumulate"));
        view.ids = sql.contains("id");
        let line = |(stream, (row, window, watermark)): &(usize, Late)| {
            let column =
                |c: usize| self.streams[*stream].rows.column(c).as_primitive::<Int64Type>();
            let text = |us: i64| {
                let values = arrow::array::TimestampMicrosecondArray::from(vec![us]);
                let array: arrow::array::ArrayRef = std::sync::Arc::new(values);
                headwater::delta::text::display_value(&array, 0).expect("not NULL")
            };
            if !(self.filter)(column(2).value(*row)) {
                return None;
            }
            let window = window.map_or("NULL | NULL".into(), |(start, end)| {
                format!("{} | {}", text(start), text(end))
            });
            let id = column(0).value(*row);
            let row = format!("{{\"id\":{id}}}");
            Some(view.late_line(&format!("{window} | {} | 1 | {row}", text(*watermark))))
        };
        view.late = self.late.iter().filter_map(line).collect();
        view
    }
}

/// A handful of views.
pub fn choose(random: &mut SmallRng, streams: &[Stream], channel: &Channel) -> Vec<View> {
    let mut kinds: Vec<usize> = (0..KINDS.len()).collect();
    rand::seq::SliceRandom::shuffle(kinds.as_mut_slice(), random);
    let mut views = Vec::new();
    for kind in kinds.into_iter().take(6) {
        let lateness = if random.random() { 0 } else { random.random_range(1..20) };
        let making = Making {
            random: &mut *random,
            lateness,
            streams,
            number: views.len(),
            inputs: Vec::new(),
            late: Vec::new(),
            filter: |_| true,
        };
        views.push(KINDS[kind](making, channel));
    }
    views
}

const KINDS: [fn(Making<'_>, &Channel) -> View; 12] = [
    aggregated,
    aggregated,
    filtered,
    listed,
    sessions,
    session_rows,
    distinct,
    joined_rows,
    joined_results,
    windows_of_windows,
    on_close,
    failing,
];

fn aggregated(mut making: Making<'_>, channel: &Channel) -> View {
    if making.random.random_bool(0.3) {
        return united(making, channel);
    }
    let windows = making.windows();
    let over = making.over(0, windows);
    let sql = format!("SELECT {KEYS}, {RESULTS} FROM {{0}} GROUP BY {KEYS}");
    making.view(&sql, &[over])
}

/// Two streams in one, each row judged by its own.
fn united(mut making: Making<'_>, _: &Channel) -> View {
    let windows = making.windows();
    let (one, two) = (making.over(0, windows), making.over(1, windows));
    let both = [making.inputs[0].1.clone(), making.inputs[1].1.clone()];
    drop((one, two));
    making.inputs.clear();
    let expected = making.input(joined(&both));
    let live = windows.sql("(SELECT * FROM a UNION ALL SELECT * FROM b)");
    let sql = format!("SELECT window_start, window_end, {RESULTS} FROM {{0}} GROUP BY 1, 2");
    making.view(&sql, &[(live, expected)])
}

fn filtered(mut making: Making<'_>, _: &Channel) -> View {
    let windows = making.windows();
    let over = making.over(1, windows);
    making.filter = |v| v % 3 != 0;
    let sql =
        format!("SELECT window_end, {RESULTS} FROM {{0}} WHERE v % 3 <> 0 GROUP BY window_end");
    making.view(&sql, &[over])
}

/// Without a form by panes.
fn listed(mut making: Making<'_>, _: &Channel) -> View {
    let windows = making.windows();
    let over = making.over(0, windows);
    let sql = "SELECT k, window_start, window_end, string_agg(id::text, ',' ORDER BY id) AS l, \
               sum(id) AS id FROM {0} GROUP BY k, window_start, window_end";
    making.view(sql, &[over])
}

fn sessions(mut making: Making<'_>, _: &Channel) -> View {
    let over = making.session(0);
    let sql = format!("SELECT {KEYS}, {RESULTS} FROM {{0}} GROUP BY {KEYS}");
    making.view(&sql, &[over])
}

fn session_rows(mut making: Making<'_>, _: &Channel) -> View {
    let over = making.session(1);
    making.view("SELECT id, k, window_start, window_end FROM {0}", &[over])
}

fn distinct(mut making: Making<'_>, _: &Channel) -> View {
    let windows = making.windows();
    let over = making.over(0, windows);
    making.view("SELECT DISTINCT k, window_start, window_end FROM {0}", &[over])
}

fn joined_rows(mut making: Making<'_>, _: &Channel) -> View {
    let windows = making.windows();
    let over = [making.over(0, windows), making.over(1, windows)];
    let sql = "SELECT x.id, y.id AS other, x.window_start, x.window_end \
               FROM {0} AS x JOIN {1} AS y ON x.k = y.k \
               AND x.window_start = y.window_start AND x.window_end = y.window_end";
    making.with_keys();
    making.view(sql, &over)
}

fn joined_results(mut making: Making<'_>, _: &Channel) -> View {
    let windows = making.windows();
    let over = [making.over(0, windows), making.over(1, windows)];
    let side = |i: usize| {
        format!(
            "(SELECT k, window_start, window_end, count(*) AS n, sum(id) AS ids FROM {{{i}}} \
             WHERE k IS NOT NULL GROUP BY k, window_start, window_end)"
        )
    };
    let sql = format!(
        "SELECT coalesce(x.k, y.k) AS k, coalesce(x.window_end, y.window_end) AS window_end, \
         coalesce(x.window_start, y.window_start) AS window_start, x.n AS xn, x.ids AS xs, \
         y.n AS yn, y.ids AS ys FROM {} AS x FULL JOIN {} AS y \
         ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
        side(0),
        side(1)
    );
    making.with_keys();
    making.view(&sql, &over)
}

fn windows_of_windows(mut making: Making<'_>, _: &Channel) -> View {
    let windows = making.windows();
    let over = making.over(0, windows);
    let size = making.random.random_range(5..40);
    let sql = format!(
        "SELECT window_start, count(*) AS groups, sum(n) AS n, sum(ids) AS ids FROM tumble((SELECT \
         window_start AS first, window_end AS ts, k, count(*) AS n, sum(id) AS ids FROM {{0}} \
         GROUP BY 1, 2, 3), ts, INTERVAL '{size} seconds') GROUP BY window_start"
    );
    making.view(&sql, &[over])
}

fn on_close(mut making: Making<'_>, channel: &Channel) -> View {
    let windows = making.windows();
    let over = making.over(0, windows);
    let sql = format!("SELECT {KEYS}, {RESULTS} FROM {{0}} GROUP BY {KEYS}");
    let closed = making.streams[0].watermark().filter(|_| !channel.ends());
    let none = making.streams[0].watermark().is_none();
    let mut view = making.view(&sql, &[over]);
    // What comes out is as early; late rows correct it.
    match view.sql.contains("EMIT") {
        true => view.sql = view.sql.replace("EMIT ON CHANGE", "EMIT ON WINDOW CLOSE"),
        false => view.sql.push_str(" EMIT ON WINDOW CLOSE"),
    }
    if let Some(us) = closed {
        let behind = (us - 1_704_067_200 * SECOND) / 1_000;
        let having = format!(
            " HAVING window_end <= TIMESTAMP '2024-01-01' + INTERVAL '{behind} milliseconds'"
        );
        view.expected.push_str(&having);
    } else if none && !channel.ends() {
        view.expected.push_str(" HAVING false");
    }
    view
}

/// Rows that fail are neither late nor counted.
fn failing(mut making: Making<'_>, _: &Channel) -> View {
    let windows = Windows::Tumble(making.random.random_range(2..9));
    let over = making.over(0, windows);
    making.filter = |v| v != 0;
    let values = making.streams[0].rows.column(2).as_primitive::<Int64Type>();
    let times = making.streams[0].times();
    let fails = |row: &usize| values.value(*row) == 0 && times.is_valid(*row);
    let failed = (0..values.len()).filter(fails).count();
    let sql = "SELECT window_start, window_end, sum(id) AS ids, sum(100 / v) AS q FROM {0} \
               GROUP BY window_start, window_end";
    let mut view = making.view(sql, &[over]);
    view.expected = view.expected.replace("GROUP", "WHERE v <> 0 GROUP");
    view.errors = Some(failed);
    view
}
