//! CUDA seen from Python: recipes, which tests compile for every architecture and emulate on the host.

use crate::launch::{Failure, guarded, parse};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use striate_core::{Recipe, Word};

/// A recipe as a dict: its workspace, and a dict per launch with source, grid, block, shared and words, each word a
/// pair of its kind and a number.
fn described<'py>(py: Python<'py>, recipe: &Recipe) -> PyResult<Bound<'py, PyDict>> {
    let launches = PyList::empty(py);
    for launch in &recipe.launches {
        let words: Vec<(&str, i64)> = launch
            .words
            .iter()
            .map(|word| match *word {
                Word::Value(value) => ("value", value),
                Word::Operand(index) => ("operand", index as i64),
                Word::Result(index) => ("result", index as i64),
                Word::Workspace(offset) => ("workspace", offset as i64),
            })
            .collect();
        let entry = PyDict::new(py);
        entry.set_item("source", &launch.source)?;
        entry.set_item("grid", launch.grid)?;
        entry.set_item("block", launch.block)?;
        entry.set_item("shared", launch.shared)?;
        entry.set_item("words", words)?;
        launches.append(entry)?;
    }
    let entry = PyDict::new(py);
    entry.set_item("workspace", recipe.workspace)?;
    entry.set_item("launches", launches)?;
    Ok(entry)
}

/// What a CUDA device would do for a problem line, and the row that says so. No device is needed.
#[pyfunction]
pub fn cuda_recipe<'py>(py: Python<'py>, line: &str) -> PyResult<Bound<'py, PyDict>> {
    let plan = guarded(|| {
        let problem = parse(line).map_err(|why| Failure::Input(format!("{why} [{line}]")))?;
        crate::planning::device_plan(&problem).map_err(Failure::refused)
    })?;
    let entry = described(py, &plan.program)?;
    entry.set_item("row", plan.row.name)?;
    Ok(entry)
}
