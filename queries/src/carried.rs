//! Rows that are carried over a restart before anybody has taken them, with what SQL does not see of them as columns of
//! their own.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::{Result, exec_err, internal_datafusion_err};

use crate::flow::Flow;
use crate::operator::batch_of;
use crate::row::{Row, Rows};
use crate::snapshot::{from_stream, to_stream};

/// Columns before the caller's: watermark and cause.
const OWN: usize = 2;

/// Rows of the same columns as one flow, in their order.
///
/// # Errors
/// When they are not of the same columns.
pub fn gathered(rows: &[&Rows]) -> Result<Flow> {
    let Some(first) = rows.first() else {
        return exec_err!("there are no rows");
    };
    let schema = nullable(&first.schema());
    let mut flows: Vec<Flow> = Vec::new();
    // Those that came one by one are made into columns together.
    let mut singles: Vec<Row> = Vec::new();
    for rows in rows {
        match rows {
            Rows::One(row) => singles.push(row.clone()),
            Rows::Many(flow) => {
                if !singles.is_empty() {
                    flows.push(Rows::of(&schema, std::mem::take(&mut singles))?.into_flow());
                }
                flows.push(flow.clone());
            }
        }
    }
    if !singles.is_empty() {
        flows.push(Rows::of(&schema, singles)?.into_flow());
    }
    let watermarks: Vec<&dyn Array> = flows
        .iter()
        .map(|flow| flow.watermarks.as_ref() as &dyn Array)
        .collect();
    let causes: Vec<&dyn Array> = flows.iter().map(|flow| flow.causes.as_ref() as &dyn Array).collect();
    let (watermarks, causes) = (concat(&watermarks)?, concat(&causes)?);
    Ok(Flow {
        batch: concat_batches(&schema, flows.iter().map(|flow| &flow.batch))?,
        watermarks: Arc::new(watermarks.as_primitive::<Int64Type>().clone()),
        causes: Arc::new(causes.as_string::<i32>().clone()),
    })
}

/// Rows as one batch that remembers their watermarks and causes, and further columns of the caller's.
///
/// # Errors
/// When a further column is not as long.
pub fn to_batch(flow: &Flow, further: &[(&str, ArrayRef)]) -> Result<RecordBatch> {
    let field = |name: &str, column: &ArrayRef| Field::new(name, column.data_type().clone(), true);
    let own: [(&str, ArrayRef); OWN] = [
        ("watermark", Arc::clone(&flow.watermarks) as ArrayRef),
        ("cause", Arc::clone(&flow.causes) as ArrayRef),
    ];
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = own
        .iter()
        .chain(further)
        .map(|(name, column)| (field(name, column), Arc::clone(column)))
        .unzip();
    fields.extend(flow.batch.schema().fields().iter().map(|field| field.as_ref().clone()));
    columns.extend(flow.batch.columns().iter().cloned());
    batch_of(&Arc::new(Schema::new(fields)), columns, flow.num_rows())
}

/// Takes back what [`to_batch`] gave with so many further columns.
///
/// # Errors
/// When the batch is something else.
pub fn from_batch(batch: &RecordBatch, further: usize) -> Result<(Flow, Vec<ArrayRef>)> {
    let wrong = || internal_datafusion_err!("these are no rows that were carried over");
    let columns = batch.columns();
    if columns.len() < OWN + further {
        return Err(wrong());
    }
    let watermarks = columns[0].as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    let causes = columns[1].as_string_opt::<i32>().ok_or_else(wrong)?;
    let indices: Vec<usize> = (OWN + further..columns.len()).collect();
    let flow = Flow {
        batch: batch.project(&indices)?,
        watermarks: Arc::new(Int64Array::clone(watermarks)),
        causes: Arc::new(StringArray::clone(causes)),
    };
    Ok((flow, columns[OWN..OWN + further].to_vec()))
}

/// The same columns, any of which may be NULL: what is gathered may have come under others.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields: Vec<Field> = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// Rows under the columns of `schema`, found by their names: what they are rows of may have got others since. One that is
/// new is NULL in all of them.
///
/// # Errors
/// When a column is of another type now.
pub fn under(rows: &Rows, schema: &SchemaRef) -> Result<Rows> {
    if rows.schema() == *schema {
        return Ok(rows.clone());
    }
    let flow = rows.flow();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in schema.fields() {
        let column = match flow.batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => {
                let (was, is): (&DataType, &DataType) = (column.data_type(), field.data_type());
                return exec_err!(
                    "'{}' was of the type {was} in rows that wait, and is {is}",
                    field.name()
                );
            }
            None => new_null_array(field.data_type(), flow.num_rows()),
        };
        columns.push(column);
    }
    let flow = flow.with_batch(batch_of(&nullable(schema), columns, flow.num_rows())?);
    Ok(match rows {
        Rows::One(_) => Rows::One(Row::of(&flow, 0)),
        Rows::Many(_) => Rows::Many(flow),
    })
}

/// Some of the rows, in this order.
///
/// # Errors
/// When Arrow can't take a column apart.
pub fn picked(rows: &Rows, picked: &[usize]) -> Result<Rows> {
    match rows {
        Rows::Many(flow) => {
            let indices = UInt32Array::from_iter_values(picked.iter().map(|row| *row as u32));
            Ok(Rows::Many(flow.taken(&indices)?))
        }
        Rows::One(row) => Ok(Rows::One(row.clone())),
    }
}

/// A batch as bytes.
///
/// # Errors
/// When Arrow can't write a column.
pub fn to_bytes(batch: &RecordBatch) -> Result<Vec<u8>> {
    to_stream(batch)
}

/// Takes back what [`to_bytes`] gave.
///
/// # Errors
/// When the bytes are something else.
pub fn from_bytes(bytes: &[u8]) -> Result<RecordBatch> {
    from_stream(bytes)
}
