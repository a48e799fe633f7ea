//! Statements about sequences.

use crate::catalog::sequence::SequenceOptions;

/// CREATE SEQUENCE and ALTER SEQUENCE.
#[derive(Debug, Clone)]
pub enum SequenceStatement {
    /// CREATE.
    Create(CreateSequence),
    /// ALTER.
    Alter(AlterSequence),
}

/// CREATE SEQUENCE.
#[derive(Debug, Clone)]
pub struct CreateSequence {
    /// The folded name.
    pub name: String,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// Its clauses.
    pub options: SequenceOptions,
}

/// ALTER SEQUENCE.
#[derive(Debug, Clone)]
pub struct AlterSequence {
    /// The folded name.
    pub name: String,
    /// IF EXISTS.
    pub if_exists: bool,
    /// The clauses that change.
    pub options: SequenceOptions,
}

/// The sequence that a column is to get.
#[derive(Debug, Clone)]
pub struct NewSequence {
    /// Its folded name; one is made up when there is none.
    pub name: Option<String>,
    /// Its clauses.
    pub options: SequenceOptions,
}
