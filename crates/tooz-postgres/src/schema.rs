//! The schema as it is in the database: which layout it is kept in, what this user may do with it, and how it is made and brought up to date.
//!
//! All members of a schema speak one layout, and a newer revision of it adds what older members need not know of.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tooz_core::{Error, ErrorKind, Outcome, Result};

use crate::ddl::{self, quoted};
use crate::error;
use crate::layout::{LAYOUT, REVISION, creating};
use crate::options::{DEFAULT_SCHEMA, Settings};

/// What was found in the schema.
#[expect(clippy::struct_excessive_bools, reason = "each is an answer of the catalog")]
pub(crate) struct Schema {
    user: String,
    pub(crate) exists: bool,
    pub(crate) has_tables: bool,
    /// Nothing of what this revision makes was dropped.
    is_complete: bool,
    /// The owners of what this user may not change.
    owners: Option<String>,
    /// The layout and its revision; `None` where nothing is there, or where it may not be read.
    kept: Option<(i32, i32)>,
    /// Whether this user may create what is missing.
    pub(crate) may_create: bool,
    /// Whether this user may change what is there.
    may_change: bool,
    may_use: bool,
    may_read_layout: bool,
    may_read: bool,
    may_write: bool,
    may_count: bool,
    may_call: bool,
}

/// What the privileges are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    Own,
}

/// What there is to do before anything can be owned in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Todo {
    Nothing,
    /// Run the DDL: nothing is there yet, or an older revision.
    Create,
}

impl Schema {
    /// Asks the catalog, which logs nothing and fails for no user, and then the record if there is one.
    pub(crate) async fn look(connection: &mut PgConnection, settings: &Settings) -> Result<Self> {
        let doing = || format!("look for the tables in schema {:?}", settings.schema);
        let failed = |error| error::of(error, doing());
        let row = sqlx::query(include_str!("sql/found.sql"))
            .bind(&settings.schema)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        let is = |column: &str| row.try_get::<bool, _>(column).map_err(failed);
        let mut found = Schema {
            user: row.try_get("who").map_err(failed)?,
            exists: is("has_schema")?,
            has_tables: is("has_tables")?,
            is_complete: is("is_complete")?,
            owners: row.try_get("owners").map_err(failed)?,
            // What has no record was made before there were any.
            kept: (is("has_tables")? && !is("has_layout")?).then_some((1, 1)),
            may_create: is("may_create")?,
            may_change: is("may_change")?,
            may_use: is("may_use")?,
            may_read_layout: is("may_read_layout")?,
            may_read: is("may_read")?,
            may_write: is("may_write")?,
            may_count: is("may_count")?,
            may_call: is("may_call")?,
        };
        if is("has_layout")? && found.may_use && found.may_read_layout {
            let record = sqlx::query_as::<_, (i32, i32)>("SELECT layout, revision FROM layout");
            found.kept = record.fetch_optional(connection).await.map_err(failed)?.or(Some((LAYOUT, 1)));
        }
        Ok(found)
    }

    /// What is to be done before a session opens; an error that names the user that can do it, where this one can't.
    pub(crate) fn todo(&self, settings: &Settings) -> Result<Todo> {
        let schema = &settings.schema;
        if !self.has_tables {
            if self.may_create && (self.may_use || !self.exists) {
                return Ok(Todo::Create);
            }
            let lacking =
                format!("the tables are not in schema {schema:?}, and user {:?} may not create them", self.user);
            return Err(unauthorized(
                &lacking,
                &format!("let the owner of the database run {}", self.printed(settings)),
            ));
        }
        self.refuse_foreign(settings)?;
        if self.is_old() {
            if self.may_change && self.may_create {
                return Ok(Todo::Create);
            }
            let (user, revision) = (&self.user, self.revision());
            let lacking = format!(
                "schema {schema:?} is of an older version of tooz (revision {revision}, this one needs {REVISION}), and user {user:?}"
            );
            return Err(match &self.owners {
                Some(owners) => unauthorized(
                    &format!("{lacking} does not own it"),
                    &format!("let its owner ({owners}) run {}; older members go on working", self.printed(settings)),
                ),
                None => unauthorized(
                    &format!("{lacking} may not create in it"),
                    &format!(
                        "let the schema's owner run: GRANT CREATE ON SCHEMA {} TO {};",
                        quoted(schema),
                        quoted(user)
                    ),
                ),
            });
        }
        self.refuse_lacking(settings, Purpose::Own)?;
        if self.is_complete {
            return Ok(Todo::Nothing);
        }
        if self.may_change && self.may_create {
            return Ok(Todo::Create);
        }
        Err(unauthorized(
            &format!(
                "tables or functions of tooz were dropped from schema {schema:?}, and user {:?} may not make them again",
                self.user
            ),
            &format!("let its owner run {}", self.printed(settings)),
        ))
    }

    /// Whether there is something that this version would bring up to date.
    pub(crate) fn is_old(&self) -> bool {
        self.kept.is_some_and(|(_, revision)| revision < REVISION)
    }

    /// Whether a member that watches can have the dead taken away.
    pub(crate) fn can_clear_up(&self) -> bool {
        self.kept.is_some_and(|(layout, revision)| layout == LAYOUT && revision >= 2) && self.may_use && self.may_call
    }

    pub(crate) fn refuse_foreign(&self, settings: &Settings) -> Result<()> {
        match self.kept {
            Some((found, _)) if found != LAYOUT => Err(foreign(&settings.schema, found)),
            _ => Ok(()),
        }
    }

    /// Fails if the user lacks a privilege, and says which `GRANT` gives it.
    pub(crate) fn refuse_lacking(&self, settings: &Settings, need: Purpose) -> Result<()> {
        let grants = self.missing(settings, need);
        if grants.is_empty() {
            return Ok(());
        }
        Err(unauthorized(
            &format!("user {:?} lacks privileges in schema {:?}", self.user, settings.schema),
            &format!(
                "let its owner run: {} ({} prints all that a member needs)",
                grants.join(" "),
                self.printed(settings)
            ),
        ))
    }

    /// The `GRANT`s that are missing.
    pub(crate) fn missing(&self, settings: &Settings, need: Purpose) -> Vec<String> {
        let [usage, write, count, call] = ddl::grant_statements(&settings.schema, &self.user);
        let mut missing = Vec::new();
        if !self.may_use {
            missing.push(usage);
        }
        if !self.may_read_layout {
            missing.push(format!("GRANT SELECT ON {}.layout TO PUBLIC;", quoted(&settings.schema)));
        }
        match need {
            Purpose::Read if !self.may_read => missing.push(ddl::grant_read(&settings.schema, &self.user)),
            Purpose::Own if !self.may_write => missing.push(write),
            _ => {}
        }
        if need == Purpose::Own && !self.may_count {
            missing.push(count);
        }
        if !self.may_call {
            missing.push(call);
        }
        missing
    }

    /// The revision that was found.
    pub(crate) fn revision(&self) -> i32 {
        self.kept.map_or(1, |(_, revision)| revision)
    }

    /// What an operator can do where something is in the way.
    pub(crate) fn mend(&self, settings: &Settings) -> String {
        match self.kept {
            Some((layout, _)) if layout != LAYOUT => "name another schema by the option `schema`".to_owned(),
            _ => match self.missing(settings, Purpose::Own) {
                missing if missing.is_empty() || !self.has_tables => self.printed(settings),
                missing => missing.join(" "),
            },
        }
    }

    /// The command that prints what is to be run.
    pub(crate) fn printed(&self, settings: &Settings) -> String {
        let schema = &settings.schema;
        let named = if schema == DEFAULT_SCHEMA { String::new() } else { format!(" --schema {schema:?}") };
        format!("what `tooz schema postgres{named} --role {:?}` prints", self.user)
    }
}

/// Creates what is missing and brings up to date what is older, where this user may; else names the one that can. In one transaction, so that the
/// record of the layout tells whether all is there.
pub(crate) async fn ensure(connection: &mut PgConnection, settings: &Settings) -> Result<()> {
    let doing = || format!("create the tables in schema {:?}", settings.schema);
    let failed = |error| error::of(error, doing());
    let found = Schema::look(connection, settings).await?;
    if found.todo(settings)? == Todo::Nothing {
        return Ok(());
    }
    let script = if found.exists { ddl::script_inside } else { ddl::script };
    // A text without parameters is one transaction, and its locks go with it. The limit of a statement is for small ones, and another session that is
    // just creating may take its time. Whatever this waits for after that keeps others waiting behind it, so it is not patient with members that live
    // in the tables.
    let script = format!(
        "SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '30s', true);\n\
         SELECT pg_advisory_xact_lock({});\nSET LOCAL lock_timeout = '1s';\n{}",
        creating(&settings.schema),
        script(&settings.schema)
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await.map(drop).map_err(failed)
}

/// The error for a schema that is kept in another layout.
pub(crate) fn foreign(schema: &str, found: impl std::fmt::Display) -> Error {
    Error::config(format!(
        "schema {schema:?} is kept in layout {found}, and this version of tooz speaks layout {LAYOUT}: members of both would hold the same lock \
         at once. Stop all that use the old one and drop the schema, or give the new ones another schema (option `schema`)"
    ))
}

fn unauthorized(what: &str, mend: &str) -> Error {
    Error::new(ErrorKind::Unauthorized, format!("{what}: {mend}")).with_outcome(Outcome::NotApplied)
}
