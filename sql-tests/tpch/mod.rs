//! TPC-H for tests and benchmarks: the schema, the 22 queries with the parameters that the
//! specification validates with, and the rows of a scale factor from the `tpchgen` crate.

use std::fmt::Display;

use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};

/// The statements that create the eight tables.
pub const SCHEMA: &str = include_str!("schema.sql");

/// The queries by name.
pub const QUERIES: [(&str, &str); 22] = [
    ("q01", include_str!("q01.sql")),
    ("q02", include_str!("q02.sql")),
    ("q03", include_str!("q03.sql")),
    ("q04", include_str!("q04.sql")),
    ("q05", include_str!("q05.sql")),
    ("q06", include_str!("q06.sql")),
    ("q07", include_str!("q07.sql")),
    ("q08", include_str!("q08.sql")),
    ("q09", include_str!("q09.sql")),
    ("q10", include_str!("q10.sql")),
    ("q11", include_str!("q11.sql")),
    ("q12", include_str!("q12.sql")),
    ("q13", include_str!("q13.sql")),
    ("q14", include_str!("q14.sql")),
    ("q15", include_str!("q15.sql")),
    ("q16", include_str!("q16.sql")),
    ("q17", include_str!("q17.sql")),
    ("q18", include_str!("q18.sql")),
    ("q19", include_str!("q19.sql")),
    ("q20", include_str!("q20.sql")),
    ("q21", include_str!("q21.sql")),
    ("q22", include_str!("q22.sql")),
];

/// The tables in an order in which a loader may fill them.
pub const TABLES: [&str; 8] =
    ["region", "nation", "supplier", "part", "partsupp", "customer", "orders", "lineitem"];

/// Calls `each` with every row of a table, as its values separated by `|`.
pub fn rows(table: &str, scale_factor: f64, mut each: impl FnMut(&str)) {
    let sf = scale_factor;
    match table {
        "region" => lines(RegionGenerator::new(sf, 1, 1).iter(), &mut each),
        "nation" => lines(NationGenerator::new(sf, 1, 1).iter(), &mut each),
        "supplier" => lines(SupplierGenerator::new(sf, 1, 1).iter(), &mut each),
        "part" => lines(PartGenerator::new(sf, 1, 1).iter(), &mut each),
        "partsupp" => lines(PartSuppGenerator::new(sf, 1, 1).iter(), &mut each),
        "customer" => lines(CustomerGenerator::new(sf, 1, 1).iter(), &mut each),
        "orders" => lines(OrderGenerator::new(sf, 1, 1).iter(), &mut each),
        _ => lines(LineItemGenerator::new(sf, 1, 1).iter(), &mut each),
    }
}

fn lines<T: Display>(rows: impl Iterator<Item = T>, each: &mut impl FnMut(&str)) {
    for row in rows {
        let text = row.to_string();
        each(text.strip_suffix('|').unwrap_or(&text));
    }
}
