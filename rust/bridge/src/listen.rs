//! What a thread plans while somebody listens: how `explain` follows any function down to its kernels.

use crate::planning::alone;
use crate::torch_stable::loaded;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cell::RefCell;
use striate_core::{Recipe, Request, Why};
use striate_plan::{Chosen, Plan};

/// A choice of a kernel row.
pub struct Heard {
    problem: String,
    row: &'static str,
    refusals: Vec<(&'static str, Why)>,
    workspace: usize,
}

/// How many threads a call has now.
fn width() -> usize {
    loaded().map_or(1, |shim| shim.threads())
}

impl Heard {
    pub fn on_cpu(plan: &Plan) -> Heard {
        Heard::of(plan, plan.program.workspace(width()))
    }

    pub fn on_device(plan: &Plan<Recipe>) -> Heard {
        Heard::of(plan, plan.program.workspace)
    }

    pub fn operation(request: &Request<'_>, chosen: &Chosen) -> Heard {
        Heard {
            problem: request.to_string(),
            row: chosen.row.name,
            refusals: chosen.refusals.clone(),
            workspace: (chosen.row.workspace)(request, width()),
        }
    }

    pub fn device_operation(request: &Request<'_>, row: &'static str, workspace: usize) -> Heard {
        Heard { problem: request.to_string(), row, refusals: Vec::new(), workspace }
    }

    fn of<C: 'static>(plan: &Plan<C>, workspace: usize) -> Heard {
        Heard { problem: plan.problem.to_string(), row: plan.row.name, refusals: plan.refusals.clone(), workspace }
    }

    /// The choice as Python reads it.
    pub fn entry<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let entry = PyDict::new(py);
        entry.set_item("problem", self.problem)?;
        entry.set_item("row", self.row)?;
        entry.set_item("refusals", self.refusals)?;
        entry.set_item("workspace", self.workspace)?;
        Ok(entry)
    }
}

thread_local! {
    static HEARD: RefCell<Option<Vec<Heard>>> = const { RefCell::new(None) };
}

/// Says what was chosen, if anybody listens.
pub fn tell(make: impl FnOnce() -> Heard) {
    HEARD.with_borrow_mut(|heard| heard.as_mut().map(|heard| heard.push(make())));
}

/// Begins to listen on this thread. Plans are forgotten, so that every choice is made, and heard, anew.
#[pyfunction]
pub fn listen() {
    let _alone = alone();
    striate_plan::forget();
    HEARD.set(Some(Vec::new()));
}

/// Ends to listen: the choices since, in their order.
#[pyfunction]
pub fn heard(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    HEARD.take().unwrap_or_default().into_iter().map(|choice| choice.entry(py)).collect()
}
