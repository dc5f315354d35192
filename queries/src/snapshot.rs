//! A snapshot is what the running queries must remember over a restart, as Arrow data with a fingerprint a query.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use serde::{Deserialize, Serialize};

/// One query's operators, each with its number in the pipeline.
#[derive(Debug, Clone)]
pub struct QuerySnapshot {
    /// The query's name.
    pub name: String,
    /// What the parts mean; restored into another query they would mean something else.
    pub fingerprint: String,
    /// The operators' states.
    pub parts: Vec<(usize, RecordBatch)>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    name: String,
    fingerprint: String,
    /// (operator, bytes of its Arrow stream).
    parts: Vec<(usize, usize)>,
}

impl QuerySnapshot {
    /// A JSON header, its length before it, and the operators' Arrow IPC streams behind it.
    ///
    /// # Errors
    /// When Arrow can't write a column.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut streams = Vec::new();
        let mut parts = Vec::new();
        for (operator, batch) in &self.parts {
            let stream = to_stream(batch)?;
            parts.push((*operator, stream.len()));
            streams.extend(stream);
        }
        let header = Header {
            name: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            parts,
        };
        let header = serde_json::to_vec(&header).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(streams);
        Ok(bytes)
    }

    /// Reads what `to_bytes` wrote.
    ///
    /// # Errors
    /// When the bytes are not a snapshot.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let cut = || internal_datafusion_err!("the snapshot is cut off");
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
        let header = rest.get(..length).ok_or_else(cut)?;
        let header: Header = serde_json::from_slice(header)
            .map_err(|error| internal_datafusion_err!("the snapshot's header: {error}"))?;
        let mut rest = &rest[length..];
        let mut parts = Vec::new();
        for (operator, length) in header.parts {
            let stream = rest.get(..length).ok_or_else(cut)?;
            rest = &rest[length..];
            parts.push((operator, from_stream(stream)?));
        }
        Ok(Self {
            name: header.name,
            fingerprint: header.fingerprint,
            parts,
        })
    }
}

/// A batch as an Arrow IPC stream.
pub(crate) fn to_stream(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    let mut writer = StreamWriter::try_new(&mut stream, &batch.schema())?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok(stream)
}

/// Takes back what `to_stream` gave.
pub(crate) fn from_stream(stream: &[u8]) -> Result<RecordBatch> {
    let mut reader = StreamReader::try_new(Cursor::new(stream), None)?;
    Ok(reader
        .next()
        .ok_or_else(|| internal_datafusion_err!("the snapshot is cut off"))??)
}
