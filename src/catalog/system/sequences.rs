//! Sequences as clients see them: `pg_sequence`, `pg_sequences`, `information_schema.sequences`.

use super::{Cell, Facts, Rows, SystemTable, cells, oid, visible};
use crate::catalog::sequence::{Sequence, SequenceType};
use crate::catalog::{Relation, RelationKind};

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_sequence",
        columns: "seqrelid:i seqtypid:i seqstart:i seqincrement:i seqmax:i seqmin:i seqcache:i \
            seqcycle:b",
        rows: pg_sequence,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_sequences",
        columns: "schemaname:t sequencename:t sequenceowner:t data_type:t start_value:i \
            min_value:i max_value:i increment_by:i cycle:b cache_size:i last_value:i",
        rows: pg_sequences,
    },
    SystemTable {
        schema: "information_schema",
        name: "sequences",
        columns: "sequence_catalog:t sequence_schema:t sequence_name:t data_type:t \
            numeric_precision:n numeric_precision_radix:n numeric_scale:n start_value:t \
            minimum_value:t maximum_value:t increment:t cycle_option:t",
        rows: information,
    },
];

fn sequences<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = (&'a Relation, &'a Sequence)> {
    let all = visible(facts.catalog).filter(|r| r.kind == RelationKind::Sequence);
    all.filter_map(|r| Some((r.as_ref(), r.sequence.as_ref()?)))
}

fn bits(data_type: SequenceType) -> (i64, i64) {
    match data_type {
        SequenceType::SmallInt => (21, 16),
        SequenceType::Integer => (23, 32),
        SequenceType::BigInt => (20, 64),
    }
}

fn pg_sequence(facts: &Facts<'_>) -> Rows {
    let row = |(r, Sequence { def, .. }): (&Relation, &Sequence)| {
        cells![
            oid(r.id),
            bits(def.data_type).0,
            def.start,
            def.increment,
            def.max,
            def.min,
            def.cache,
            def.cycle
        ]
    };
    sequences(facts).map(row).collect()
}

fn pg_sequences(facts: &Facts<'_>) -> Rows {
    let row = |(r, Sequence { def, .. }): (&Relation, &Sequence)| {
        let last = (facts.standing)(r).filter(|at| at.called).map(|at| at.value);
        cells![
            r.schema_name(),
            r.local_name(),
            facts.catalog.access().name(r.acl.owner),
            def.data_type.name(),
            def.start,
            def.min,
            def.max,
            def.increment,
            def.cycle,
            def.cache,
            Cell::from(last)
        ]
    };
    sequences(facts).map(row).collect()
}

/// Whether a sequence is that of an identity column, which the standard knows no name of.
fn is_hidden(facts: &Facts<'_>, sequence: &Sequence) -> bool {
    let owner = sequence.owner.as_ref();
    owner.is_some_and(|owner| {
        let table = facts.catalog.by_id(owner.table);
        table.is_some_and(|table| {
            let at = table.schema.index_of(&owner.column).ok();
            at.is_some_and(|at| table.rules.identities.contains_key(&at))
        })
    })
}

fn information(facts: &Facts<'_>) -> Rows {
    let row = |(r, Sequence { def, .. }): (&Relation, &Sequence)| {
        cells![
            facts.database,
            r.schema_name(),
            r.local_name(),
            def.data_type.name(),
            bits(def.data_type).1,
            2,
            0,
            def.start.to_string(),
            def.min.to_string(),
            def.max.to_string(),
            def.increment.to_string(),
            if def.cycle { "YES" } else { "NO" }
        ]
    };
    sequences(facts).filter(|(_, sequence)| !is_hidden(facts, sequence)).map(row).collect()
}
