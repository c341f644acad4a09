//! Deciding the role of each column.

use std::{collections::HashSet, path::Path};

use super::{
    format::{Column, Format, Header, RowNumbers, Target},
    rows::shortened,
};
use crate::{
    data::number::whole_number,
    error::{Error, Result},
};

/// The role of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Feature,
    Class,
    /// A real-valued target, with its place among the targets.
    Value(usize),
    LeftOut,
}

/// The roles of a file's columns, and the features that may turn out to be row numbers.
pub(super) struct Plan<'a> {
    path: &'a Path,
    pub(super) roles: Vec<Role>,
    numberings: Vec<Numbering>,
}

impl<'a> Plan<'a> {
    /// For a file whose first row has the cells `first`.
    pub(super) fn new(
        path: &'a Path,
        first: &[String],
        format: &Format,
        target: Option<&Target>,
    ) -> Result<Self> {
        let file = First { path, cells: first, header: format.header };
        let mut roles = vec![Role::Feature; first.len()];
        for column in &format.leave_out {
            file.find(column)?.for_each(|index| roles[index] = Role::LeftOut);
        }
        let targets: Vec<(&Column, Role)> = match target {
            None => Vec::new(),
            Some(Target::Class(column) | Target::Text(column) | Target::OneOf(column, _)) => {
                vec![(column, Role::Class)]
            }
            Some(Target::Values(columns)) => columns.iter().zip((0..).map(Role::Value)).collect(),
        };
        if target.is_some() && targets.is_empty() {
            return Err(Error::Empty { what: "the list of target columns".into() });
        }
        for (column, role) in targets {
            let index = file.find_target(column, &roles)?;
            roles[index] = role;
        }
        file.require_single_target(&format.target, &roles)?;
        file.require_names(format, target, &roles)?;
        let numberings = match format.row_numbers {
            RowNumbers::Refuse => file.numberings(&roles),
            RowNumbers::Keep => Vec::new(),
        };
        Ok(Self { path, roles, numberings })
    }

    /// How many columns are features.
    pub(super) fn features(&self) -> usize {
        self.roles.iter().filter(|&&role| role == Role::Feature).count()
    }

    /// The names of the features.
    pub(super) fn feature_names(&self, first: &[String], header: Header) -> Vec<String> {
        if header == Header::Absent {
            return Vec::new();
        }
        let columns = first.iter().zip(&self.roles);
        columns.filter(|(_, role)| **role == Role::Feature).map(|(name, _)| name.clone()).collect()
    }

    /// Checks whether a feature still looks like row numbers.
    pub(super) fn look_at(&mut self, column: usize, cell: &str) {
        // They are in the order of their columns.
        if let Ok(index) =
            self.numberings.binary_search_by_key(&column, |numbering| numbering.column)
        {
            self.numberings[index].look_at(cell);
        }
    }

    pub(super) fn require_no_row_numbers(&self) -> Result<()> {
        let Some(found) = self.numberings.iter().find(|numbering| numbering.is_one()) else {
            return Ok(());
        };
        let reason = format!(
            "column {}{} numbers the rows and is no feature: add it to `leave_out`, or keep it with \
             `row_numbers: RowNumbers::Keep`",
            found.column + 1,
            found.name.as_ref().map_or(String::new(), |name| format!(" ('{name}')")),
        );
        Err(Error::Columns { path: self.path.to_owned(), reason })
    }
}

/// The first row of a file.
struct First<'a> {
    path: &'a Path,
    cells: &'a [String],
    header: Header,
}

impl First<'_> {
    /// All columns that `column` means; at least one, or an error.
    fn find<'b>(&'b self, column: &'b Column) -> Result<impl Iterator<Item = usize> + 'b> {
        let is_named = self.header != Header::Absent;
        let is_meant = move |&index: &usize| match column {
            Column::Name(name) => is_named && self.cells[index] == name.trim(),
            Column::Index(wanted) => index == *wanted,
        };
        let mut found = (0..self.cells.len()).filter(is_meant).peekable();
        if found.peek().is_some() {
            return Ok(found);
        }
        let found: Vec<&str> = self.cells.iter().take(5).map(|cell| &**cell).collect();
        Err(Error::NoSuchColumn {
            path: self.path.to_owned(),
            expected: column.show(),
            found: shortened(&found.join(",")),
        })
    }

    /// The column of a target. It must not have another role.
    fn find_target(&self, column: &Column, roles: &[Role]) -> Result<usize> {
        let mut found = self.find(column)?.filter(|&index| roles[index] != Role::LeftOut);
        let Some(index) = found.next() else {
            return Err(self.refuse(format!("column {} is a target and left out", column.show())));
        };
        if found.next().is_some() {
            return Err(self.refuse(format!(
                "two columns are called {}: say which by its index, and add the other to `leave_out`",
                column.show()
            )));
        }
        match roles[index] {
            Role::Feature => Ok(index),
            _ => Err(self.refuse(format!("column {} is a target twice", column.show()))),
        }
    }

    /// Fails if a feature has the name of a target, or the name that pandas gives to a second column of
    /// the same name. Such a feature would reveal the answer.
    fn require_single_target(&self, target: &Target, roles: &[Role]) -> Result<()> {
        if self.header == Header::Absent {
            return Ok(());
        }
        let features = || (0..roles.len()).filter(|&index| roles[index] == Role::Feature);
        let mut targets: Vec<&str> = target.columns().filter_map(Column::name).collect();
        let learned =
            (0..roles.len()).filter(|&at| matches!(roles[at], Role::Class | Role::Value(_)));
        targets.extend(learned.map(|at| &*self.cells[at]));
        for name in targets.into_iter().filter(|name| !name.is_empty()) {
            if let Some(index) = features().find(|&index| is_copy(&self.cells[index], name)) {
                return Err(self.refuse(format!(
                    "column {} ('{}') is a feature, but called as the target is: add it to `leave_out`",
                    index + 1,
                    shortened(&self.cells[index]),
                )));
            }
        }
        Ok(())
    }

    /// Fails if the names of the columns look like a sample.
    fn require_names(
        &self,
        format: &Format,
        target: Option<&Target>,
        roles: &[Role],
    ) -> Result<()> {
        if self.header != Header::Present {
            return Ok(());
        }
        let is_number = |cell: &str| cell.parse::<f64>().is_ok();
        // If a column was found by its name, the first row has names.
        let mut asked = format.leave_out.iter().chain(target.into_iter().flat_map(Target::columns));
        if asked.any(|column| column.name().is_some_and(|name| !is_number(name))) {
            return Ok(());
        }
        // Class names and columns that are left out look like names in every row, so they tell nothing.
        let is_text = matches!(target, Some(Target::Text(_) | Target::OneOf(..)));
        let is_silent = |role: Role| role == Role::LeftOut || is_text && role == Role::Class;
        let cells = || (0..roles.len()).filter(|&index| !is_silent(roles[index]));
        let cells = || cells().map(|index| (index, &*self.cells[index]));
        let is_sample = cells().next().is_some() && cells().all(|(_, cell)| is_number(cell));
        let is_counted = cells().all(|(index, cell)| *cell == *index.to_string());
        if is_sample && !is_counted {
            let row: Vec<&str> = self.cells.iter().take(5).map(|cell| &**cell).collect();
            return Err(self.refuse(format!(
                "the first row, '{}', is a sample and names no columns: use Header::Absent, or \
                 Header::Numbers if these are names",
                shortened(&row.join(",")),
            )));
        }
        Ok(())
    }

    /// The features that may be row numbers.
    fn numberings(&self, roles: &[Role]) -> Vec<Numbering> {
        let features = (0..roles.len()).filter(|&index| roles[index] == Role::Feature);
        if self.header == Header::Absent {
            return features.take_while(|&index| index == 0).map(Numbering::counting).collect();
        }
        let named = features.filter(|&index| numbers_rows(&self.cells[index]));
        named.map(|index| Numbering::named(index, &self.cells[index])).collect()
    }

    fn refuse(&self, reason: String) -> Error {
        Error::Columns { path: self.path.to_owned(), reason }
    }
}

impl Target {
    fn columns(&self) -> impl Iterator<Item = &Column> {
        match self {
            Self::Class(column) | Self::Text(column) | Self::OneOf(column, _) => {
                std::slice::from_ref(column).iter()
            }
            Self::Values(columns) => columns.iter(),
        }
    }
}

impl Column {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name.trim()),
            Self::Index(_) => None,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Name(name) => format!("'{}'", shortened(name)),
            Self::Index(index) => index.to_string(),
        }
    }
}

/// Whether a column is called `name` or `name.1`.
fn is_copy(column: &str, name: &str) -> bool {
    column.strip_prefix(name).is_some_and(|rest| match rest.strip_prefix('.') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => rest.is_empty(),
    })
}

/// Whether columns of row numbers usually have this name.
fn numbers_rows(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let exact = ["", "#", "id", "idx", "index"].contains(&&*lower);
    let ends = ["_id", "-id", " id", ".id"].iter().any(|end| lower.ends_with(end));
    // `PassengerId`, but not `humid`.
    let rest = name.strip_suffix("Id").or(name.strip_suffix("ID"));
    let camel = rest.is_some_and(|rest| rest.ends_with(|last: char| last.is_ascii_lowercase()));
    exact || ends || camel || lower.starts_with("unnamed:")
}

/// A feature that has looked like row numbers so far.
struct Numbering {
    column: usize,
    /// Its name, if the name is suspicious. Then whole numbers in any order are enough.
    name: Option<String>,
    is_possible: bool,
    rows: u64,
    last: usize,
    seen: HashSet<usize>,
}

/// The number of rows that a first column without a name has to count before it is taken for row
/// numbers.
const COUNTED_ROWS: u64 = 10;

impl Numbering {
    fn counting(column: usize) -> Self {
        Self { column, name: None, is_possible: true, rows: 0, last: 0, seen: HashSet::new() }
    }

    fn named(column: usize, name: &str) -> Self {
        Self { name: Some(shortened(name)), ..Self::counting(column) }
    }

    fn look_at(&mut self, cell: &str) {
        if !self.is_possible {
            return;
        }
        self.is_possible = match cell.parse().ok().and_then(whole_number) {
            None => false,
            Some(number) if self.name.is_some() => self.seen.insert(number),
            Some(number) => {
                let is_next = self.rows == 0 || Some(number) == self.last.checked_add(1);
                self.last = number;
                is_next
            }
        };
        self.rows += 1;
    }

    fn is_one(&self) -> bool {
        let enough = if self.name.is_some() { 2 } else { COUNTED_ROWS };
        self.is_possible && self.rows >= enough
    }
}
