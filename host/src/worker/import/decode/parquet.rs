//! Rows of parquet files, in their own order of columns. Knows nothing of shards.

use std::fs::File;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::data_type::Decimal;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Record};

use super::{Budget, DecodeError, Row, failed};

/// Calls `row` for every record.
pub(super) fn records(name: &str, file: &File, budget: &Budget, row: &mut Row<'_>) -> Result<(), DecodeError> {
    let bad = |error: ParquetError| DecodeError::Bad(name.to_owned(), error.to_string());
    let reader = open(name, file)?;
    let mut json = Vec::new();
    for record in reader.get_row_iter(None).map_err(bad)? {
        json.clear();
        object(&record.map_err(bad)?, &mut json).map_err(|error| DecodeError::Bad(name.to_owned(), error.to_string()))?;
        budget.take(json.len() as u64).map_err(|error| failed(name, &error))?;
        row(&json)?;
    }
    Ok(())
}

/// How many records the footer says there are.
pub(super) fn count(name: &str, file: &File) -> Result<u64, DecodeError> {
    let rows = open(name, file)?.metadata().file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| DecodeError::Bad(name.to_owned(), format!("it says that it has {rows} rows")))
}

fn open(name: &str, file: &File) -> Result<SerializedFileReader<File>, DecodeError> {
    let file = file.try_clone().map_err(|error| failed(name, &error))?;
    SerializedFileReader::new(file).map_err(|error| DecodeError::Bad(name.to_owned(), error.to_string()))
}

fn object(record: &Record, json: &mut Vec<u8>) -> serde_json::Result<()> {
    json.push(b'{');
    for (index, (column, field)) in record.get_column_iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        serde_json::to_writer(&mut *json, column)?;
        json.push(b':');
        value(field, json)?;
    }
    json.push(b'}');
    Ok(())
}

/// Bytes become base64, times become texts of ISO 8601; what JSON has no number for becomes null.
fn value(field: &Field, json: &mut Vec<u8>) -> serde_json::Result<()> {
    match field {
        Field::Null => serde_json::to_writer(json, &()),
        Field::Bool(value) => serde_json::to_writer(json, value),
        Field::Byte(value) => serde_json::to_writer(json, value),
        Field::Short(value) => serde_json::to_writer(json, value),
        Field::Int(value) => serde_json::to_writer(json, value),
        Field::Long(value) => serde_json::to_writer(json, value),
        Field::UByte(value) => serde_json::to_writer(json, value),
        Field::UShort(value) => serde_json::to_writer(json, value),
        Field::UInt(value) => serde_json::to_writer(json, value),
        Field::ULong(value) => serde_json::to_writer(json, value),
        Field::Float16(value) => serde_json::to_writer(json, &value.to_f32()),
        Field::Float(value) => serde_json::to_writer(json, value),
        Field::Double(value) => serde_json::to_writer(json, value),
        Field::Decimal(value) => serde_json::to_writer(json, &decimal(value)),
        Field::Str(text) => serde_json::to_writer(json, text),
        Field::Bytes(bytes) => serde_json::to_writer(json, &STANDARD.encode(bytes.data())),
        Field::Group(record) => object(record, json),
        Field::ListInternal(list) => {
            json.push(b'[');
            for (index, element) in list.elements().iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                value(element, json)?;
            }
            json.push(b']');
            Ok(())
        }
        Field::MapInternal(map) => {
            json.push(b'{');
            for (index, (key, element)) in map.entries().iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                match key {
                    Field::Str(key) => serde_json::to_writer(&mut *json, key)?,
                    key => serde_json::to_writer(&mut *json, &key.to_string())?,
                }
                json.push(b':');
                value(element, json)?;
            }
            json.push(b'}');
            Ok(())
        }
        // Dates and times: the crate writes them as ISO 8601 does.
        other => serde_json::to_writer(json, &other.to_string()),
    }
}

/// A decimal as a text: no number of JSON keeps its digits.
fn decimal(value: &Decimal) -> String {
    Field::Decimal(value.clone()).to_string()
}
