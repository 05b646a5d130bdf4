//! Columns of a data set, as its first rows show them. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Columns that are remembered.
const MAX_COLUMNS: usize = 256;
/// Longest name of a column.
const MAX_NAME: usize = 128;

/// Columns in the order in which they were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(Vec<Column>);

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// `string`, `int`, `float`, `bool`, `list`, `object`, `null`, or `mixed`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Schema {
    /// Every column.
    pub fn columns(&self) -> &[Column] {
        &self.0
    }

    /// Looks at a row. What is no object is not a row.
    pub fn see(&mut self, row: &[u8]) {
        let Ok(row) = serde_json::from_slice::<Map<String, Value>>(row) else { return };
        for (name, value) in row {
            self.add(&name, kind(&value));
        }
    }

    /// Adds what another part of the data set has.
    pub fn merge(&mut self, other: &Self) {
        for column in &other.0 {
            self.add(&column.name, &column.kind);
        }
    }

    fn add(&mut self, name: &str, kind: &str) {
        if name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return;
        }
        if let Some(column) = self.0.iter_mut().find(|column| column.name == name) {
            column.kind = both(&column.kind, kind).to_owned();
        } else if self.0.len() < MAX_COLUMNS {
            self.0.push(Column { name: name.to_owned(), kind: kind.to_owned() });
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// The type of a column that had one and now has another.
fn both<'a>(one: &'a str, other: &'a str) -> &'a str {
    match (one, other) {
        _ if one == other => one,
        ("null", other) => other,
        (one, "null") => one,
        ("int" | "float", "int" | "float") => "float",
        _ => "mixed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_columns_are_those_of_all_rows() {
        let mut schema = Schema::default();
        for row in [r#"{"a":1,"b":null,"c":[1]}"#, r#"{"a":1.5,"b":"x","d":true}"#, r#"{"d":{}}"#, "[1]", "{"] {
            schema.see(row.as_bytes());
        }
        let columns = serde_json::to_string(&schema).unwrap();
        assert_eq!(
            columns,
            r#"[{"name":"a","type":"float"},{"name":"b","type":"string"},{"name":"c","type":"list"},{"name":"d","type":"mixed"}]"#
        );
        let mut other = Schema::default();
        other.see(br#"{"z":1,"a":null}"#);
        schema.merge(&other);
        assert_eq!(schema.columns().last().map(|column| column.name.as_str()), Some("z"));
    }
}
