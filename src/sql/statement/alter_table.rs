//! ALTER TABLE of columns and constraints.

use sqlparser::ast::Expr;

use super::{ColumnDef, NewSequence};
use crate::catalog::Identity;
use crate::catalog::sequence::SequenceOptions;

/// ALTER TABLE name action, ..
#[derive(Debug, Clone)]
pub struct AlterTable {
    /// The folded name.
    pub name: String,
    /// IF EXISTS.
    pub if_exists: bool,
    /// What is to be done, in this order.
    pub actions: Vec<TableAction>,
}

/// One thing that ALTER TABLE does. Names are folded.
#[derive(Debug, Clone)]
pub enum TableAction {
    /// ADD [COLUMN] [IF NOT EXISTS].
    Add {
        /// The column.
        column: Box<ColumnDef>,
        /// PRIMARY KEY.
        key: bool,
        /// Its CHECK constraints: given names and conditions.
        checks: Vec<(Option<String>, Expr)>,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// DROP [COLUMN] [IF EXISTS].
    Drop {
        /// The column.
        column: String,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// RENAME [COLUMN] a TO b.
    Rename {
        /// The column.
        from: String,
        /// Its new name.
        to: String,
    },
    /// ALTER [COLUMN] SET DEFAULT and DROP DEFAULT.
    Default {
        /// The column.
        column: String,
        /// The expression; none is dropped.
        expr: Option<Expr>,
    },
    /// ALTER [COLUMN] SET NOT NULL and DROP NOT NULL.
    Nullable {
        /// The column.
        column: String,
        /// DROP.
        nullable: bool,
    },
    /// ALTER [COLUMN] [SET DATA] TYPE t [USING expr].
    Type {
        /// The column as it is to be; its other properties stay.
        column: Box<ColumnDef>,
        /// The value; without one that of the column, cast.
        using: Option<Expr>,
    },
    /// ALTER [COLUMN] ADD GENERATED .. AS IDENTITY.
    AddIdentity {
        /// The column.
        column: String,
        /// ALWAYS or BY DEFAULT.
        identity: Identity,
        /// Its sequence.
        sequence: NewSequence,
    },
    /// ALTER [COLUMN] SET GENERATED .., SET .. and RESTART of an identity column.
    SetIdentity {
        /// The column.
        column: String,
        /// ALWAYS or BY DEFAULT, where it is said.
        identity: Option<Identity>,
        /// What changes of its sequence.
        options: Box<SequenceOptions>,
    },
    /// ALTER [COLUMN] DROP IDENTITY [IF EXISTS].
    DropIdentity {
        /// The column.
        column: String,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// ADD [CONSTRAINT name] PRIMARY KEY (a, ..).
    Key(Vec<String>),
    /// ADD [CONSTRAINT name] CHECK (..).
    Check(Option<String>, Expr),
    /// DROP CONSTRAINT [IF EXISTS].
    DropConstraint {
        /// Its name.
        name: String,
        /// IF EXISTS.
        if_exists: bool,
    },
}
