//! The Python module `striate._core`.

use crate::launch::{Addresses, Failure, guarded, parse, run_line};
use crate::listen::Heard;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use striate_core::kernel::Kernel;
use striate_core::{DType, Device, Layout, Pass, Problem};
use striate_plan::{device_operations, device_table, operations, table};

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        match failure {
            Failure::Input(text) => PyValueError::new_err(text),
            Failure::Run(text) => PyRuntimeError::new_err(text),
        }
    }
}

/// Registers the CPU kernels of the three operators with the libtorch_cpu at a path, which torch has loaded.
#[pyfunction]
fn register(libtorch_path: std::path::PathBuf) -> PyResult<()> {
    Ok(guarded(|| crate::torch::register(&libtorch_path).map_err(Failure::Run))?)
}

/// Storage types a row takes, asked with depthwise problems of its own passes and layouts.
fn dtypes_of<C>(row: &Kernel<C>) -> Vec<DType> {
    let shapes = [
        "i40x40 k3x3 s1x1 d1x1 p1+1x1+1",
        "i40x40 k7x7 s1x1 d1x1 p3+3x3+3",
        "i80 k31 s1 d1 p15+15",
        "i80 k65 s1 d1 p32+32",
    ];
    let takes = |dtype: DType| {
        shapes.iter().any(|shape| {
            let line = format!("conv fwd {} nchw cpu n2 g32 ci1 co1 {shape}", dtype.name());
            let problem: Problem = line.parse().expect("a fixed line of the grammar");
            row.passes.iter().any(|&pass| {
                row.layouts
                    .iter()
                    .any(|&layout| (row.supports)(&Problem { pass, layout, tf32: true, ..problem }).is_ok())
            })
        })
    };
    DType::ALL.into_iter().filter(|&dtype| takes(dtype)).collect()
}

fn pass_name(pass: Pass) -> &'static str {
    match pass {
        Pass::Fwd => "fwd",
        Pass::Dx => "dx",
        Pass::Dw => "dw",
    }
}

/// What the table of kernels says of a row.
struct Row {
    name: &'static str,
    op: &'static str,
    passes: &'static [Pass],
    layouts: &'static [Layout],
    dtypes: Vec<DType>,
    device: Device,
    isa: &'static str,
    available: bool,
    note: &'static str,
}

impl Row {
    fn of<C>(row: &Kernel<C>, device: Device) -> Row {
        let &Kernel { name, op, passes, layouts, isa, available, note, .. } = row;
        Row { name, op, passes, layouts, dtypes: dtypes_of(row), device, isa, available: available(), note }
    }

    fn entry<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let entry = PyDict::new(py);
        entry.set_item("name", self.name)?;
        entry.set_item("op", self.op)?;
        entry.set_item("passes", self.passes.iter().map(|&pass| pass_name(pass)).collect::<Vec<_>>())?;
        entry.set_item("dtypes", self.dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>())?;
        entry.set_item("layouts", self.layouts.iter().map(|layout| layout.name()).collect::<Vec<_>>())?;
        entry.set_item("device", self.device.name())?;
        entry.set_item("isa", self.isa)?;
        // Every program promises the same bits for any number of threads (striate_core::kernel::Program).
        entry.set_item("deterministic", true)?;
        entry.set_item("available", self.available)?;
        entry.set_item("note", self.note)?;
        Ok(entry)
    }
}

/// The kernel tables, a dict per row, in order of preference.
#[pyfunction]
fn kernels(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let host = table().iter().map(|row| Row::of(row, Device::Cpu));
    let device = device_table().iter().map(|row| Row::of(row, Device::Cuda));
    let others = operations().map(|row| Row {
        name: row.name,
        op: row.op,
        passes: &[],
        layouts: &[],
        dtypes: row.dtypes.to_vec(),
        device: Device::Cpu,
        isa: row.isa,
        available: (row.available)(),
        note: row.note,
    });
    let device_others = device_operations().iter().map(|row| Row {
        name: row.name,
        op: row.op,
        passes: &[],
        layouts: &[],
        dtypes: row.dtypes.to_vec(),
        device: Device::Cuda,
        isa: "cuda",
        available: true,
        note: row.note,
    });
    let rows: PyResult<Vec<_>> =
        host.chain(device).chain(device_others).chain(others).map(|row| row.entry(py)).collect();
    PyList::new(py, rows?)
}

/// Which row a problem line runs on, why the rows before it refused, and its workspace in bytes.
#[pyfunction]
fn explain<'py>(py: Python<'py>, line: &str) -> PyResult<Bound<'py, PyDict>> {
    let problem = parse(line).map_err(|why| Failure::Input(format!("{why} [{line}]")))?;
    let choice = guarded(|| {
        match problem.device {
            Device::Cuda => crate::planning::device_plan(&problem).map(|plan| Heard::on_device(&plan)),
            Device::Cpu => crate::planning::plan(&problem).map(|plan| Heard::on_cpu(&plan)),
        }
        .map_err(Failure::refused)
    })?;
    choice.entry(py)
}

/// Allows the rows whose names match, forbids them with a leading `-`; `None` goes back to STRIATE_KERNELS.
#[pyfunction]
#[pyo3(signature = (pattern))]
fn set_kernels(pattern: Option<&str>) -> PyResult<()> {
    Ok(guarded(|| crate::planning::set_filter(pattern).map_err(Failure::Input))?)
}

/// Whether the filter leaves an operation a row beside its definition.
#[pyfunction]
fn admits(op: &str) -> PyResult<bool> {
    Ok(guarded(|| {
        let _alone = crate::planning::alone();
        Ok(striate_plan::admits(op))
    })?)
}

/// Forgets plans, and gives back the memory that kernels keep between calls: tables of roots of unity.
#[pyfunction]
fn forget() -> PyResult<()> {
    Ok(guarded(|| {
        let _alone = crate::planning::alone();
        striate_plan::forget();
        Ok(())
    })?)
}

/// Runs a problem line on the addresses of dense tensors; the caller answers for them. The GIL is released.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // Python passes what the C interface does, flat.
fn run(py: Python<'_>, line: &str, out: usize, a: usize, b: usize, bias: usize, workers: i64) -> PyResult<()> {
    let at = Addresses { first: a, second: b, bias, out };
    // SAFETY: that the addresses are those of such tensors is the caller's duty, which no type can take off Python.
    Ok(py.detach(|| guarded(|| unsafe { run_line(line, at, workers) }))?)
}

/// Instruction sets of this processor that kernels may use.
#[pyfunction]
fn cpu_features() -> Vec<&'static str> {
    #[allow(unused_mut)]
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! collect {
            ($($name:tt)*) => { $(if std::arch::is_x86_feature_detected!($name) { found.push($name); })* };
        }
        collect!("sse4.2" "avx" "f16c" "avx2" "fma" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512bf16" "avx512fp16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! collect {
            ($($name:tt)*) => { $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name); })* };
        }
        collect!("neon" "fp16" "bf16" "sve");
    }
    found
}

/// The Rust core of striate.
#[pymodule(gil_used = false)]
mod _core {
    use super::PyResult;
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::{admits, cpu_features, explain, forget, kernels, register, run, set_kernels};
    #[pymodule_export]
    use crate::call::call;
    #[pymodule_export]
    use crate::cuda::{
        cuda_cache, cuda_cache_clear, cuda_call, cuda_call_recipe, cuda_compile, cuda_prepare, cuda_recipe,
        cuda_search_in, cuda_status,
    };

    #[pymodule_export]
    use crate::listen::{heard, listen};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("version", env!("CARGO_PKG_VERSION"))
    }
}
