//! CREATE, ALTER and DROP of roles, GRANT and REVOKE, SET ROLE, ALTER DEFAULT PRIVILEGES.
//!
//! A password is made a verifier here, so that no statement has it.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::StreamParser;
use crate::catalog::access::{Privilege, Privileges, SecretValue, Verifier};
use crate::error::{Error, Result, sqlstate};
use crate::sql::statement::{
    AccessStatement, Grant, GrantObject, RoleName, RoleOptions, Statement,
};

/// Names that no role has.
const RESERVED: [&str; 6] =
    ["public", "none", "current_user", "current_role", "session_user", "user"];

fn access(statement: AccessStatement) -> Statement {
    Statement::Access(Box::new(statement))
}

impl StreamParser<'_> {
    /// CREATE SECRET name AS 'value' | FROM ENV 'X' | FROM FILE '/..', behind these words.
    pub(super) fn create_secret(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.identifier()?;
        let value = if self.accept_word("as") {
            SecretValue::Held(self.text("a secret")?)
        } else if self.accept_words(&["from", "env"]) {
            SecretValue::Env(self.text("the name of a variable")?)
        } else if self.accept_words(&["from", "file"]) {
            SecretValue::File(self.text("the path of a file")?)
        } else {
            return Err(self.unexpected());
        };
        Ok(access(AccessStatement::CreateSecret { name, if_not_exists, value }))
    }

    /// CREATE SCHEMA [name] [AUTHORIZATION role], behind these words.
    pub(super) fn create_schema(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = match self.peek_word(0).as_deref() == Some("authorization") {
            true => None,
            false => Some(self.new_schema_name()?),
        };
        let owner = match self.accept_word("authorization") {
            true => Some(self.role_name()?),
            false => None,
        };
        if matches!(self.peek_word(0).as_deref(), Some("create" | "grant")) {
            return Err(Error::unsupported("statements inside of CREATE SCHEMA are not supported")
                .with_hint("Run them one by one behind it."));
        }
        Ok(access(AccessStatement::CreateSchema { name, if_not_exists, owner }))
    }

    fn new_schema_name(&mut self) -> Result<String> {
        let name = self.identifier()?;
        if name.starts_with("pg_") {
            return Err(Error::user(
                sqlstate::RESERVED_NAME,
                format!("unacceptable schema name \"{name}\""),
            )
            .with_detail("The prefix \"pg_\" is reserved for system schemas."));
        }
        match name.contains('.') {
            false => Ok(name),
            true => Err(Error::unsupported(format!(
                "schema name \"{name}\" with a dot is not supported"
            ))),
        }
    }

    /// ALTER SCHEMA, behind these words.
    fn alter_schema(&mut self) -> Result<Statement> {
        let name = self.identifier()?;
        if self.accept_words(&["owner", "to"]) {
            let to = self.role_name()?;
            return Ok(access(AccessStatement::SchemaOwner { name, to }));
        }
        match self.peek_word(0).as_deref() {
            Some("rename") => Err(Error::unsupported("ALTER SCHEMA .. RENAME TO is not supported")
                .with_hint("Make the other schema, and ALTER TABLE .. SET SCHEMA what is in it.")),
            _ => Err(self.unexpected()),
        }
    }

    /// DROP SECRET, behind these words.
    pub(super) fn drop_secret(&mut self) -> Result<Statement> {
        let if_exists = self.p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = self.identifier()?;
        Ok(access(AccessStatement::DropSecret { name, if_exists }))
    }

    /// A string; what stands there instead is not repeated, since it may be secret all the same.
    fn text(&mut self, what: &str) -> Result<String> {
        match &self.p.peek_token_ref().token {
            Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::DollarQuotedString(_) => self.option_value(),
            _ => Err(Error::user(sqlstate::SYNTAX_ERROR, format!("{what} is a string"))
                .with_hint("Write it between single quotes.")),
        }
    }

    /// CREATE ROLE | USER | GROUP, behind these words.
    pub(super) fn create_role(&mut self, user: bool) -> Result<Statement> {
        let name = self.new_role_name()?;
        let mut options = self.role_options()?;
        options.login = options.login.or(Some(user));
        Ok(access(AccessStatement::CreateRole { name, options }))
    }

    /// ALTER of roles and of default privileges; `None` where it is of something else.
    pub(super) fn alter_access(&mut self) -> Result<Option<Statement>> {
        if self.accept_word("role") || self.accept_word("user") {
            return self.alter_role().map(Some);
        }
        if self.accept_word("schema") {
            return self.alter_schema().map(Some);
        }
        match self.accept_words(&["default", "privileges"]) {
            true => self.default_privileges().map(Some),
            false => Ok(None),
        }
    }

    /// ALTER ROLE | USER, behind these words.
    fn alter_role(&mut self) -> Result<Statement> {
        let role = self.role_name()?;
        if self.accept_words(&["rename", "to"]) {
            let RoleName::Named(name) = role else { return Err(self.unexpected()) };
            let to = self.new_role_name()?;
            return Ok(access(AccessStatement::RenameRole { name, to }));
        }
        if self.accept_words(&["in", "database"]) {
            return Err(Error::unsupported("settings of a role in one database are not supported")
                .with_hint("There is one database: leave IN DATABASE out."));
        }
        if self.accept_word("set") {
            let (name, values) = self.setting()?;
            let name = Some(name);
            return Ok(access(AccessStatement::RoleSetting { role, name, values }));
        }
        if self.accept_word("reset") {
            let all = self.accept_word("all");
            let name = if all { None } else { Some(self.setting_name()?) };
            return Ok(access(AccessStatement::RoleSetting { role, name, values: None }));
        }
        let options = self.role_options()?;
        Ok(access(AccessStatement::AlterRole { role, options }))
    }

    /// DROP ROLE | USER | GROUP, behind these words.
    pub(super) fn drop_role(&mut self) -> Result<Statement> {
        let if_exists = self.p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let names = self.identifiers()?;
        Ok(access(AccessStatement::DropRole { names, if_exists }))
    }

    fn new_role_name(&mut self) -> Result<String> {
        let name = self.identifier()?;
        let reserved = RESERVED.contains(&name.as_str()) || name.starts_with("pg_");
        match reserved {
            false => Ok(name),
            true => Err(Error::user(
                sqlstate::RESERVED_NAME,
                format!("role name \"{name}\" is reserved"),
            )),
        }
    }

    fn role_options(&mut self) -> Result<RoleOptions> {
        let mut options = RoleOptions::default();
        self.accept_word("with");
        while let Some(word) = self.peek_word(0) {
            self.p.advance_token();
            let (on, name) = match word.strip_prefix("no") {
                Some(name) => (false, name),
                None => (true, word.as_str()),
            };
            match name {
                "superuser" => options.superuser = Some(on),
                "createrole" => options.create_role = Some(on),
                "login" => options.login = Some(on),
                "inherit" if on => {}
                "createdb" | "replication" | "bypassrls" if !on => {}
                "encrypted" if on => {
                    self.expect_word("password")?;
                    options.password = Some(self.password()?);
                }
                "password" if on => options.password = Some(self.password()?),
                "valid" if on => {
                    self.expect_word("until")?;
                    options.valid_until = Some(self.option_value()?);
                }
                "connection" if on => {
                    self.expect_word("limit")?;
                    options.connections_max = Some(self.connection_limit()?);
                }
                "in" if on => {
                    let _word = self.accept_word("role") || self.accept_word("group");
                    options.in_roles = self.identifiers()?;
                }
                "role" | "user" if on => options.members = self.identifiers()?,
                "inherit" | "createdb" | "replication" | "bypassrls" | "admin" => {
                    let word = word.to_uppercase();
                    return Err(Error::unsupported(format!("role option {word} is not supported"))
                        .with_hint(
                            "SUPERUSER, CREATEROLE, LOGIN, PASSWORD, CONNECTION LIMIT, VALID \
                             UNTIL, IN ROLE and ROLE are.",
                        ));
                }
                _ => {
                    return Err(Error::user(
                        sqlstate::SYNTAX_ERROR,
                        format!("unrecognized role option \"{word}\""),
                    ));
                }
            }
        }
        Ok(options)
    }

    /// A number of connections; -1 is none.
    fn connection_limit(&mut self) -> Result<Option<u32>> {
        let none = self.p.consume_token(&Token::Minus);
        let text = self.option_value()?;
        match (none, text.parse::<u32>()) {
            (true, Ok(1)) => Ok(None),
            (false, Ok(limit)) if limit <= i32::MAX as u32 => Ok(Some(limit)),
            _ => {
                let sign = if none { "-" } else { "" };
                let message = format!("invalid connection limit: {sign}{text}");
                Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message))
            }
        }
    }

    fn password(&mut self) -> Result<Option<Verifier>> {
        if self.accept_word("null") {
            return Ok(None);
        }
        Ok(Some(Verifier::of_password(&self.text("a password")?)?))
    }

    fn identifiers(&mut self) -> Result<Vec<String>> {
        let mut names = vec![self.identifier()?];
        while self.p.consume_token(&Token::Comma) {
            names.push(self.identifier()?);
        }
        Ok(names)
    }

    fn role_name(&mut self) -> Result<RoleName> {
        let word = self.peek_word(0);
        let name = self.identifier()?;
        Ok(match word.as_deref() {
            Some("current_user" | "current_role" | "user") => RoleName::Current,
            Some("session_user") => RoleName::Session,
            Some("public") => RoleName::Public,
            _ => RoleName::Named(name),
        })
    }

    fn role_names(&mut self) -> Result<Vec<RoleName>> {
        let mut names = Vec::new();
        loop {
            self.accept_word("group");
            names.push(self.role_name()?);
            if !self.p.consume_token(&Token::Comma) {
                return Ok(names);
            }
        }
    }

    /// GRANT and REVOKE, of privileges and of memberships.
    pub(super) fn grant(&mut self) -> Result<Statement> {
        let revoke = self.accept_word("revoke");
        if !revoke {
            self.expect_word("grant")?;
        } else if self.accept_words(&["grant", "option", "for"])
            || self.accept_words(&["admin", "option", "for"])
        {
            return Err(no_grant_option());
        }
        let (names, listed) = self.granted()?;
        if !self.accept_word("on") {
            let members = self.granted_to(revoke)?;
            self.end_of_grant(revoke)?;
            let roles = names;
            return Ok(access(AccessStatement::Membership { roles, members, revoke }));
        }
        let on = self.grant_object()?;
        let has: &[Privilege] = match on {
            GrantObject::Schemas(_) => &Privileges::SCHEMA,
            GrantObject::Sequences(_) | GrantObject::AllSequences(_) => &Privileges::SEQUENCE,
            _ => &Privileges::RELATION,
        };
        let privileges = privileges(listed.then_some(&names), has)?;
        let roles = self.granted_to(revoke)?;
        self.end_of_grant(revoke)?;
        Ok(access(AccessStatement::Grant(Grant { privileges, on, roles, revoke })))
    }

    /// ALTER DEFAULT PRIVILEGES, behind these words.
    fn default_privileges(&mut self) -> Result<Statement> {
        let of = match self.accept_word("for") {
            true => {
                let _word = self.accept_word("role") || self.accept_word("user");
                self.role_names()?
            }
            false => Vec::new(),
        };
        let schemas = match self.accept_words(&["in", "schema"]) {
            true => self.identifiers()?,
            false => Vec::new(),
        };
        let revoke = self.accept_word("revoke");
        if !revoke {
            self.expect_word("grant")?;
        }
        let (names, listed) = self.granted()?;
        self.expect_word("on")?;
        self.expect_word("tables")?;
        let privileges = privileges(listed.then_some(&names), &Privileges::RELATION)?;
        let roles = self.granted_to(revoke)?;
        self.end_of_grant(revoke)?;
        Ok(access(AccessStatement::Defaults { of, schemas, privileges, roles, revoke }))
    }

    /// Names of privileges or roles, and whether they are listed: not ALL.
    fn granted(&mut self) -> Result<(Vec<String>, bool)> {
        if self.accept_word("all") {
            self.accept_word("privileges");
            return Ok((Vec::new(), false));
        }
        let names = self.identifiers()?;
        if self.p.peek_token_ref().token == Token::LParen {
            return Err(Error::unsupported("privileges on columns are not supported")
                .with_hint("Make a view of those columns, and grant SELECT on it."));
        }
        Ok((names, true))
    }

    fn granted_to(&mut self, revoke: bool) -> Result<Vec<RoleName>> {
        self.expect_word(if revoke { "from" } else { "to" })?;
        self.role_names()
    }

    fn end_of_grant(&mut self, revoke: bool) -> Result<()> {
        if self.accept_words(&["with", "grant", "option"]) || self.accept_words(&["with", "admin"])
        {
            return Err(no_grant_option());
        }
        if self.accept_words(&["granted", "by"]) {
            self.role_name()?;
        }
        if revoke {
            // Nobody else has granted anything because of it.
            let _rule = self.accept_word("cascade") || self.accept_word("restrict");
        }
        Ok(())
    }

    fn grant_object(&mut self) -> Result<GrantObject> {
        if self.accept_words(&["all", "sequences", "in", "schema"]) {
            return Ok(GrantObject::AllSequences(self.identifiers()?));
        }
        if self.accept_words(&["all", "tables", "in", "schema"]) {
            return Ok(GrantObject::All(self.identifiers()?));
        }
        if self.peek_word(1).is_some_and(|w| w != "to" && w != "from") && self.accept_word("schema")
        {
            return Ok(GrantObject::Schemas(self.identifiers()?));
        }
        let next = self.peek_word(1).is_some_and(|w| w != "to" && w != "from");
        let refused = ["database", "function", "language", "tablespace", "type"];
        if let Some(kind) = self.peek_word(0).filter(|w| next && refused.contains(&w.as_str())) {
            let kind = kind.to_uppercase();
            return Err(Error::unsupported(format!("privileges on a {kind} are not supported")));
        }
        if next && self.accept_word("sequence") {
            let mut names = vec![self.name()?];
            while self.p.consume_token(&Token::Comma) {
                names.push(self.name()?);
            }
            return Ok(GrantObject::Sequences(names));
        }
        let quoted = matches!(&self.p.peek_nth_token_ref(1).token, Token::Word(_));
        if quoted && !self.accept_words(&["materialized", "view"]) {
            let _kind = ["table", "view", "source", "sink"].iter().any(|kind| {
                self.peek_word(1).is_none_or(|w| w != "to" && w != "from") && self.accept_word(kind)
            });
        }
        let mut names = vec![self.name()?];
        while self.p.consume_token(&Token::Comma) {
            names.push(self.name()?);
        }
        Ok(GrantObject::Relations(names))
    }

    /// SET ROLE, behind these words.
    pub(super) fn set_role(&mut self) -> Result<Statement> {
        let role = match self.accept_word("none") {
            true => None,
            false => Some(self.option_name()?),
        };
        Ok(access(AccessStatement::SetRole(role)))
    }

    /// SET SESSION AUTHORIZATION, behind these words.
    pub(super) fn set_session_authorization(&mut self) -> Result<Statement> {
        let role = match self.accept_word("default") {
            true => None,
            false => Some(self.option_name()?),
        };
        Ok(access(AccessStatement::SetSession(role)))
    }

    /// RESET ROLE and RESET SESSION AUTHORIZATION.
    pub(super) fn reset_role(&mut self) -> Option<Statement> {
        if self.accept_words(&["session", "authorization"]) {
            return Some(access(AccessStatement::SetSession(None)));
        }
        self.accept_word("role").then(|| access(AccessStatement::SetRole(None)))
    }

    /// A name, which may be written as a string, too.
    fn option_name(&mut self) -> Result<String> {
        match &self.p.peek_token_ref().token {
            Token::SingleQuotedString(_) => self.option_value(),
            _ => self.identifier(),
        }
    }

    /// ALTER .. name OWNER TO, behind the name; `None` where something else follows.
    pub(super) fn owner(&mut self, noun: &'static str, name: &str) -> Result<Option<Statement>> {
        if !self.accept_words(&["owner", "to"]) {
            return Ok(None);
        }
        let to = self.role_name()?;
        Ok(Some(access(AccessStatement::Owner { noun, name: name.to_owned(), to })))
    }
}

fn privileges(names: Option<&Vec<String>>, has: &[Privilege]) -> Result<Privileges> {
    let Some(names) = names else { return Ok(has.iter().copied().collect()) };
    let of = |name: &String| match Privilege::named(name) {
        Some(privilege) if has.contains(&privilege) => Ok(privilege),
        Some(privilege) => Err(Error::user(
            sqlstate::INVALID_GRANT_OPERATION,
            format!("invalid privilege type {} for relation", privilege.name()),
        )),
        None if ["references", "trigger", "maintain"].contains(&name.as_str()) => {
            Err(Error::unsupported(format!("privilege {} is not supported", name.to_uppercase())))
        }
        None => Err(Error::user(
            sqlstate::SYNTAX_ERROR,
            format!("unrecognized privilege type \"{name}\""),
        )),
    };
    names.iter().map(of).collect()
}

fn no_grant_option() -> Error {
    Error::unsupported("rights to grant on are not supported")
        .with_detail("The owner of an object grants, and so do members of the owner.")
}
