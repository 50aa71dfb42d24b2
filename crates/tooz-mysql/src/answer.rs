//! The answer to some statements that went in one packet.

use sqlx::mysql::{MySql, MySqlRow};
use sqlx::{Decode, Row as _};

/// What each statement has answered, in their order: rows, or none.
pub(crate) struct ResultSets(Vec<Vec<MySqlRow>>);

impl ResultSets {
    pub(crate) fn new(answers: Vec<Vec<MySqlRow>>) -> Self {
        ResultSets(answers)
    }

    /// The rows of that statement.
    pub(crate) fn rows(&self, statement: usize) -> &[MySqlRow] {
        self.0.get(statement).map_or(&[], Vec::as_slice)
    }

    /// How many statements have answered.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// That column of the first row of that statement; `None`: it is null.
    pub(crate) fn number(&self, statement: usize, column: usize) -> Result<Option<i64>, sqlx::Error> {
        number(self.first(statement)?, column)
    }

    /// Whether it is neither null nor 0.
    pub(crate) fn is(&self, statement: usize, column: usize) -> Result<bool, sqlx::Error> {
        Ok(self.number(statement, column)?.unwrap_or(0) != 0)
    }

    pub(crate) fn text(&self, statement: usize, column: usize) -> Result<Option<String>, sqlx::Error> {
        text(self.first(statement)?, column)
    }

    pub(crate) fn first(&self, statement: usize) -> Result<&MySqlRow, sqlx::Error> {
        self.rows(statement).first().ok_or(sqlx::Error::RowNotFound)
    }
}

/// A number, of whatever width and sign the server says it is.
pub(crate) fn number(row: &MySqlRow, column: usize) -> Result<Option<i64>, sqlx::Error> {
    cell(row, column)
}

/// A number without a sign.
pub(crate) fn unsigned(row: &MySqlRow, column: usize) -> Result<Option<u64>, sqlx::Error> {
    cell(row, column)
}

/// A text, also where the column is one of bytes. What is no UTF-8 is shown as well as it can be.
pub(crate) fn text(row: &MySqlRow, column: usize) -> Result<Option<String>, sqlx::Error> {
    Ok(bytes(row, column)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

pub(crate) fn bytes(row: &MySqlRow, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
    cell(row, column)
}

/// The types that the server gives to the values of expressions differ between the families.
fn cell<'r, T: Decode<'r, MySql>>(row: &'r MySqlRow, column: usize) -> Result<Option<T>, sqlx::Error> {
    row.try_get_unchecked(column)
}
