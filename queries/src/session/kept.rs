//! What sessions remember over a restart, as Arrow data.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::{Piece, PieceId, Run, Sessions};
use crate::keys::Group;
use crate::operator::batch_of;

/// A piece with its run and its key.
pub(super) struct KeptPiece {
    pub(super) group: Group,
    first: i64,
    last: i64,
    is_begun: bool,
    piece: Piece,
}

impl Sessions {
    /// A row a piece, with its run and its key; the watermark in the schema's metadata. Of some of the keys and
    /// aggregates, numbered as they are handed in.
    pub(super) fn keep(&mut self, keys: &[usize], calls: &[usize]) -> Result<RecordBatch> {
        let pieces = self.pieces_of(0..self.runs.end() as Group);
        let columns = self.piece_columns(&pieces, keys, calls)?;
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields).with_metadata(self.times()));
        batch_of(
            &schema,
            columns.into_iter().map(|(_, column)| column).collect(),
            pieces.len(),
        )
    }

    /// The pieces of some keys, in the order of the keys and of time.
    pub(super) fn pieces_of(&self, groups: impl IntoIterator<Item = Group>) -> Vec<KeptPiece> {
        let mut pieces = Vec::new();
        for group in groups {
            for run in &self.runs[group as usize] {
                pieces.extend(run.pieces.iter().map(|piece| KeptPiece {
                    group,
                    first: run.first,
                    last: run.last,
                    is_begun: run.is_begun,
                    piece: *piece,
                }));
            }
        }
        pieces
    }

    /// What is kept of pieces: a column each for their runs, keys and aggregates.
    pub(super) fn piece_columns(
        &mut self,
        pieces: &[KeptPiece],
        keys: &[usize],
        calls: &[usize],
    ) -> Result<Vec<(String, ArrayRef)>> {
        let groups: Vec<Group> = pieces.iter().map(|kept| kept.group).collect();
        let ids: Vec<PieceId> = pieces.iter().map(|kept| kept.piece.id).collect();
        let numbers =
            |of: fn(&KeptPiece) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(pieces.iter().map(of))) };
        let begun: BooleanArray = pieces.iter().map(|kept| Some(kept.is_begun)).collect();
        let causes: StringArray = ids.iter().map(|id| self.causes[*id as usize].as_deref()).collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("first".into(), numbers(|kept| kept.first)),
            ("last".into(), numbers(|kept| kept.last)),
            ("cell".into(), numbers(|kept| kept.piece.cell)),
            ("begun".into(), Arc::new(begun)),
            ("cause".into(), Arc::new(causes)),
        ];
        let key_columns = self.keys.columns(&groups)?;
        for (index, key) in keys.iter().enumerate() {
            columns.push((format!("key{index}"), Arc::clone(&key_columns[*key])));
        }
        for (index, call) in calls.iter().enumerate() {
            for (part, column) in self.accumulators[*call].state(&ids)?.into_iter().enumerate() {
                columns.push((format!("aggregate{index}_{part}"), column));
            }
        }
        Ok(columns)
    }

    /// Takes back what `keep` gave.
    pub(super) fn take_back(&mut self, snapshot: &RecordBatch) -> Result<()> {
        let schema = snapshot.schema();
        let time = |name: &str| {
            let text = schema.metadata().get(name);
            text.and_then(|text| text.parse().ok()).unwrap_or(i64::MIN)
        };
        self.watermark = time("watermark");
        self.before = time("before");
        if snapshot.num_rows() == 0 {
            return Ok(());
        }
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
        for (group, runs) in self.runs.places() {
            for run in runs {
                self.due.insert((self.due_of(run), group, run.first));
            }
        }
        Ok(())
    }
}
