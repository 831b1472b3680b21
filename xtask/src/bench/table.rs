//! Medians and ratios, as a table.

use std::fmt;
use std::time::Duration;

use harness::process::Cost;

use crate::text::{size, time};

/// One line of the table: the rounds of one measurement.
pub struct Row {
    name: String,
    stock: Vec<Cost>,
    /// Empty for a floor, which only one program runs.
    ours: Vec<Cost>,
}

impl Row {
    /// For a comparison.
    pub fn pair(name: &str) -> Self {
        Self { name: name.to_owned(), stock: Vec::new(), ours: Vec::new() }
    }

    /// For a floor.
    pub fn single(name: &str) -> Self {
        Self::pair(name)
    }

    /// Adds a round of a comparison.
    pub fn add_pair(&mut self, stock: Cost, ours: Cost) {
        self.stock.push(stock);
        self.ours.push(ours);
    }

    /// Adds one half of a round of a comparison.
    pub fn add(&mut self, stock: bool, cost: Cost) {
        if stock { &mut self.stock } else { &mut self.ours }.push(cost);
    }

    /// Adds a round of a floor.
    pub fn add_single(&mut self, cost: Cost) {
        self.stock.push(cost);
    }

    /// Median over the rounds of ours divided by stock; `None` for what was not measured.
    fn ratio(&self, of: impl Fn(&Cost) -> f64) -> Option<f64> {
        let pairs = self.stock.iter().zip(&self.ours).filter(|(stock, _)| of(stock) > 0.0);
        median(pairs.map(|(stock, ours)| of(ours) / of(stock).max(1e-9)).collect())
    }

    fn cells(&self) -> [String; 10] {
        let wall = |cost: &Cost| cost.wall.as_secs_f64();
        let cpu = |cost: &Cost| cost.cpu.as_secs_f64();
        let peak = |cost: &Cost| cost.peak_memory as f64;
        let seconds = |costs: &[Cost], of: &dyn Fn(&Cost) -> f64| {
            median(costs.iter().map(of).filter(|value| *value > 0.0).collect())
                .map_or_else(|| "-".to_owned(), |value| time(Duration::from_secs_f64(value)))
        };
        let bytes = |costs: &[Cost]| {
            median(costs.iter().map(peak).filter(|value| *value > 0.0).collect())
                .map_or_else(|| "-".to_owned(), |value| size(value as u64))
        };
        let ratio = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
        };
        [
            self.name.clone(),
            seconds(&self.stock, &wall),
            seconds(&self.ours, &wall),
            ratio(self.ratio(wall)),
            seconds(&self.stock, &cpu),
            seconds(&self.ours, &cpu),
            ratio(self.ratio(cpu)),
            bytes(&self.stock),
            bytes(&self.ours),
            ratio(self.ratio(peak)),
        ]
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// All rows.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["", "wall", "ours", "ratio", "cpu", "ours", "ratio", "peak", "ours", "ratio"];
        let mut lines = vec![heads.map(str::to_owned)];
        lines.extend(self.0.iter().map(Row::cells));
        for cells in lines {
            write!(f, "{:<32}", cells[0])?;
            for cell in &cells[1..] {
                write!(f, "{cell:>11}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
