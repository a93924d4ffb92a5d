//! CUDA: launches for torch, and what Python may ask: where the libraries are, what the cache holds, and recipes,
//! which tests compile for every architecture and emulate on the host.

use crate::call::{Given, Tensors};
use crate::handles::Home;
use crate::launch::{Addresses, Failure, guarded, parse};
use crate::listen::{Heard, tell};
use crate::torch_stable::shim;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::path::PathBuf;
use striate_core::{Problem, Recipe, Word};
use striate_gpu::{cache, compiler, driver};

/// Runs a problem on torch's current stream of a device.
///
/// # Safety
/// The addresses must be those of live tensors of that device as [`Problem::strides`] lays them out, which stay
/// allocated until the stream has passed.
pub unsafe fn launch(problem: &Problem, at: Addresses, home: Home) -> Result<(), String> {
    let plan = crate::planning::device_plan(problem).map_err(|refused| refused.to_string())?;
    // SAFETY: the caller's promise.
    unsafe { enqueue(&plan.program, &[at.first, at.second, at.bias], &[at.out], home) }
}

/// Puts a recipe on torch's current stream of a device.
///
/// # Safety
/// The addresses are those of live tensors of that device, as the recipe was made for, until the stream has passed.
unsafe fn enqueue(recipe: &Recipe, operands: &[usize], results: &[usize], home: Home) -> Result<(), String> {
    let driver = driver()?;
    let stream = shim().cuda_stream(home.index)?;
    let mut space = match recipe.workspace {
        0 => None,
        bytes => Some(crate::torch::bytes_at(bytes, home)?),
    };
    let workspace = space.as_mut().map_or(0, |space| space.address_mut());
    let at = striate_gpu::Addresses { operands, results, workspace };
    // SAFETY: the caller's promise; the workspace is torch's, which reuses it on the same stream only.
    unsafe { driver.run(recipe, &at, home.index, stream) }
}

/// Runs an operation on tensors of a CUDA device, given as for `call`, on torch's current stream; the name of the row,
/// or `None` where no row of the device takes it. The caller answers for the tensors. The GIL is released.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // Extracted from Python as owned values.
pub fn cuda_call(
    py: Python<'_>,
    op: &str,
    settings: &str,
    operands: Vec<Option<Given>>,
    results: Vec<Given>,
    device: i32,
) -> PyResult<Option<&'static str>> {
    Ok(py.detach(|| {
        guarded(|| {
            let tensors = Tensors::new(&operands, &results).map_err(Failure::Input)?;
            let request = tensors.request(op, settings);
            let Ok(row) = striate_plan::device_operation(&request) else { return Ok(None) };
            let (recipe, home) = ((row.compile)(&request), Home { kind: shim().cuda, index: device });
            tell(|| Heard::device_operation(&request, row.name, recipe.workspace));
            // SAFETY: that the tensors are what is said of them, and live, is the duty of the Python caller.
            unsafe { enqueue(&recipe, &tensors.reads, &tensors.writes, home) }
                .map_err(|why| Failure::Run(format!("{why} [{request}]")))?;
            Ok(Some(row.name))
        })
    })?)
}

/// What a CUDA device would do for such a call, and the row that says so. No device is needed.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // Extracted from Python as owned values.
pub fn cuda_call_recipe<'py>(
    py: Python<'py>,
    op: &str,
    settings: &str,
    operands: Vec<Option<Given>>,
    results: Vec<Given>,
) -> PyResult<Bound<'py, PyDict>> {
    let (recipe, name) = guarded(|| {
        let tensors = Tensors::new(&operands, &results).map_err(Failure::Input)?;
        let request = tensors.request(op, settings);
        let row = striate_plan::device_operation(&request).map_err(Failure::Input)?;
        Ok(((row.compile)(&request), row.name))
    })?;
    let entry = described(py, &recipe)?;
    entry.set_item("row", name)?;
    Ok(entry)
}

/// Names folders to search for NVIDIA's libraries before the system does.
#[pyfunction]
pub fn cuda_search_in(folders: Vec<PathBuf>) {
    striate_gpu::search_in(folders);
}

/// What is known of CUDA on this machine: the compiler and the driver, each with its version, or why it is missing,
/// the devices, and the folder of the cache.
#[pyfunction]
pub fn cuda_status(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let entry = PyDict::new(py);
    match compiler() {
        Ok(found) => {
            entry.set_item("nvrtc", format!("{}.{}", found.version.0, found.version.1))?;
            entry.set_item("nvrtc_path", found.path())?;
            entry.set_item("nvrtc_archs", &found.archs)?;
        }
        Err(why) => entry.set_item("nvrtc_missing", why)?,
    }
    match driver() {
        Ok(found) => {
            let version = found.version();
            entry.set_item("driver", format!("{}.{}", version / 1000, version % 1000 / 10))?;
            entry.set_item("driver_path", found.path())?;
            entry.set_item("devices", found.devices().map_err(Failure::Run)?)?;
        }
        Err(why) => entry.set_item("driver_missing", why)?,
    }
    entry.set_item("cache", cache::folder())?;
    Ok(entry)
}

/// Names and sizes in bytes of the compiled kernels on disk.
#[pyfunction]
pub fn cuda_cache() -> Vec<(String, u64)> {
    cache::entries()
}

/// Removes the compiled kernels on disk and says how many there were.
#[pyfunction]
pub fn cuda_cache_clear() -> PyResult<usize> {
    Ok(cache::clear()?)
}

/// Compiles the kernels of a recipe's sources for an architecture such as 90 and keeps them on disk; the machine code.
#[pyfunction]
pub fn cuda_compile<'py>(py: Python<'py>, source: &str, arch: u32) -> PyResult<Bound<'py, PyBytes>> {
    let code = py.detach(|| guarded(|| striate_gpu::machine_code(source, arch).map_err(Failure::Run)))?;
    Ok(PyBytes::new(py, &code))
}

/// Compiles and loads the kernels of a problem line on a device, so that a CUDA graph may be captured.
#[pyfunction]
pub fn cuda_prepare(py: Python<'_>, line: &str, device: i32) -> PyResult<()> {
    Ok(py.detach(|| {
        guarded(|| {
            let problem = parse(line).map_err(|why| Failure::Input(format!("{why} [{line}]")))?;
            let plan = crate::planning::device_plan(&problem).map_err(Failure::refused)?;
            driver().and_then(|driver| driver.prepare(&plan.program, device)).map_err(Failure::Run)
        })
    })?)
}

/// A recipe as a dict: its workspace, and a dict per launch with source, grid, block, shared and words, each word a
/// triple of its kind, a number or place, and bytes from there on.
fn described<'py>(py: Python<'py>, recipe: &Recipe) -> PyResult<Bound<'py, PyDict>> {
    let launches = PyList::empty(py);
    for launch in &recipe.launches {
        let words: Vec<(&str, i64, usize)> = launch
            .words
            .iter()
            .map(|word| match *word {
                Word::Value(value) => ("value", value, 0),
                Word::Operand(index) => ("operand", index as i64, 0),
                Word::Result(index) => ("result", index as i64, 0),
                Word::OperandAt(index, bytes) => ("operand", index as i64, bytes),
                Word::ResultAt(index, bytes) => ("result", index as i64, bytes),
                Word::Workspace(offset) => ("workspace", 0, offset),
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
