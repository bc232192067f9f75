//! One description of a result that prints as a table for people and as JSON for programs.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table as Drawn, presets};
use serde_json::{Map, Value};

/// Rows of values. Columns have a title for people and a key for programs.
pub struct Table {
    columns: Vec<(&'static str, &'static str)>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn new(columns: &[(&'static str, &'static str)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// As many values as there are columns.
    pub fn row(&mut self, values: impl IntoIterator<Item = Value>) {
        let row: Vec<Value> = values.into_iter().collect();
        assert_eq!(row.len(), self.columns.len(), "a value for each column");
        self.rows.push(row);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// An array of objects.
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let fields =
                self.columns.iter().zip(row).map(|((_, key), value)| (key.to_string(), value.clone()));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }

    pub fn to_text(&self) -> String {
        let mut drawn = Drawn::new();
        drawn.load_style(presets::NOTHING);
        // Lines are not folded: they are to be searched and cut.
        drawn.set_content_arrangement(ContentArrangement::Disabled);
        drawn.set_header(self.columns.iter().map(|(title, _)| Cell::new(title.to_uppercase())));
        for row in &self.rows {
            drawn.add_row(row.iter().map(cell));
        }
        for (at, column) in drawn.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.rows.iter().any(|row| row[at].is_number()) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        drawn.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

fn cell(value: &Value) -> Cell {
    Cell::new(text(value))
}

/// As people read it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_description_two_forms() {
        let mut table = Table::new(&[("topic", "topic"), ("lag", "lag"), ("internal", "is_internal")]);
        table.row([json!("orders"), json!(12), json!(false)]);
        table.row([json!("t"), Value::Null, json!(true)]);
        assert_eq!(
            table.to_json(),
            json!([
                {"topic": "orders", "lag": 12, "is_internal": false},
                {"topic": "t", "lag": null, "is_internal": true}
            ])
        );
        let lines: Vec<Vec<String>> = table
            .to_text()
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        assert_eq!(lines, [["TOPIC", "LAG", "INTERNAL"], ["orders", "12", "no"], ["t", "-", "yes"]]);
    }
}
