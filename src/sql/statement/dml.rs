//! Statements that change rows, with what sqlparser has no place for.

use sqlparser::ast;

/// INSERT, with the queries of a WITH ahead of it in its own.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The statement.
    pub insert: ast::Insert,
    /// OVERRIDING.
    pub overriding: Option<Overriding>,
}

/// OVERRIDING { SYSTEM | USER } VALUE: which values identity columns take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overriding {
    /// Those of the statement, also where a column is GENERATED ALWAYS.
    System,
    /// Those of their sequences.
    User,
}

/// UPDATE.
#[derive(Debug, Clone)]
pub struct Update {
    /// The WITH ahead of it.
    pub with: Option<ast::With>,
    /// The statement.
    pub update: ast::Update,
}

/// DELETE.
#[derive(Debug, Clone)]
pub struct Delete {
    /// The WITH ahead of it.
    pub with: Option<ast::With>,
    /// The statement.
    pub delete: ast::Delete,
}

/// MERGE.
#[derive(Debug, Clone)]
pub struct Merge {
    /// The WITH ahead of it.
    pub with: Option<ast::With>,
    /// The statement; an UPDATE without assignments is DO NOTHING, the ROW of an INSERT its
    /// DEFAULT VALUES.
    pub merge: ast::Merge,
    /// OVERRIDING of each of its clauses.
    pub overriding: Vec<Option<Overriding>>,
}
