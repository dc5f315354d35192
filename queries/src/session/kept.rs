//! What sessions remember over a restart, as Arrow data.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::{Piece, PieceId, Run, Sessions};
use crate::keys::Group;
use crate::operator::batch_of;

impl Sessions {
    /// A row a piece, with its run and its key; the watermark in the schema's metadata.
    pub(super) fn keep(&mut self) -> Result<RecordBatch> {
        let mut groups: Vec<Group> = Vec::new();
        let mut pieces: Vec<(Run, Piece)> = Vec::new();
        for (group, runs) in self.runs.iter().enumerate() {
            for run in runs {
                for piece in &run.pieces {
                    groups.push(group as Group);
                    pieces.push((run.clone(), *piece));
                }
            }
        }
        let ids: Vec<PieceId> = pieces.iter().map(|(_, piece)| piece.id).collect();
        let numbers = |of: fn(&(Run, Piece)) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(pieces.iter().map(of)))
        };
        let begun: BooleanArray = pieces.iter().map(|(run, _)| Some(run.is_begun)).collect();
        let causes: StringArray = ids
            .iter()
            .map(|id| self.causes.get(*id as usize).and_then(|cause| cause.as_deref()))
            .collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("first".into(), numbers(|(run, _)| run.first)),
            ("last".into(), numbers(|(run, _)| run.last)),
            ("cell".into(), numbers(|(_, piece)| piece.cell)),
            ("begun".into(), Arc::new(begun)),
            ("cause".into(), Arc::new(causes)),
        ];
        for (index, column) in self.keys.columns(&groups)?.into_iter().enumerate() {
            columns.push((format!("key{index}"), column));
        }
        for (index, accumulator) in self.accumulators.iter_mut().enumerate() {
            for (part, column) in accumulator.state(&ids)?.into_iter().enumerate() {
                columns.push((format!("aggregate{index}_{part}"), column));
            }
        }
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
            .collect();
        let times = HashMap::from([("watermark".to_owned(), self.watermark.to_string())]);
        let schema = Arc::new(Schema::new(fields).with_metadata(times));
        batch_of(
            &schema,
            columns.into_iter().map(|(_, column)| column).collect(),
            pieces.len(),
        )
    }

    /// Takes back what `keep` gave.
    pub(super) fn take_back(&mut self, snapshot: &RecordBatch) -> Result<()> {
        let schema = snapshot.schema();
        let watermark = schema.metadata().get("watermark").and_then(|text| text.parse().ok());
        self.watermark = watermark.unwrap_or(i64::MIN);
        let column = |name: &str| {
            snapshot
                .column_by_name(name)
                .ok_or_else(|| internal_datafusion_err!("the snapshot has no column '{name}'"))
        };
        let rows = snapshot.num_rows();
        let number =
            |name: &str| Ok::<_, datafusion::common::DataFusionError>(column(name)?.as_primitive::<Int64Type>());
        let (first, last, cell) = (number("first")?, number("last")?, number("cell")?);
        let begun = column("begun")?.as_boolean();
        let causes = column("cause")?.as_string::<i32>();
        let keys = (0..self.plan.keys.len())
            .map(|index| column(&format!("key{index}")).cloned())
            .collect::<Result<Vec<_>>>()?;
        let mut groups = Vec::new();
        self.keys.intern(&keys, rows, &mut groups)?;
        self.runs.resize(self.keys.capacity(), Vec::new());
        let mut ids = Vec::with_capacity(rows);
        for (row, group) in groups.iter().enumerate() {
            let id = self.new_piece();
            ids.push(id);
            if self.plan.keeps_causes && causes.is_valid(row) {
                self.causes[id as usize] = Some(causes.value(row).into());
            }
            let piece = Piece {
                cell: cell.value(row),
                id,
            };
            let runs = &mut self.runs[*group as usize];
            match runs.last_mut() {
                Some(run) if run.first == first.value(row) => run.pieces.push(piece),
                _ => {
                    runs.push(Run {
                        first: first.value(row),
                        last: last.value(row),
                        pieces: vec![piece],
                        is_begun: begun.value(row),
                    });
                    self.keys.hold(*group);
                }
            }
        }
        for (index, accumulator) in self.accumulators.iter_mut().enumerate() {
            let state = (0..accumulator.state_width())
                .map(|part| column(&format!("aggregate{index}_{part}")).cloned())
                .collect::<Result<Vec<_>>>()?;
            accumulator.restore(&ids, &state)?;
        }
        for (group, runs) in self.runs.iter().enumerate() {
            for run in runs {
                self.due.insert((self.due_of(run), group as Group, run.first));
            }
        }
        Ok(())
    }
}
